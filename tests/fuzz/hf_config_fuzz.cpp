// config.json of a model from strangers. What is accepted has a count of parameters and rotary
// frequencies, and is written and read back unchanged.
#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/parameter_table.h"
#include "qianli/model/rotary.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace qianli;

void check(const model::ModelSpec& spec) {
  fuzz::require(model::parameter_count(spec) > 0, "a model has parameters");
  fuzz::require(model::training_flops(spec, 1, 128) > 0, "a model has work to do");
  const auto text = model::to_hugging_face(spec).dump();
  const auto again =
      model::from_hugging_face(parse_json(text, "again", FileRole::kConfig), "again");
  fuzz::require(again == spec, "what is written reads as what was read");
  for (int64_t l = 0; l < std::min<int64_t>(spec.num_layers, 100); ++l) {
    const model::LayerSpec layer = spec.layer(l);
    if (layer.rope == nullptr) continue;
    const auto rotary = model::rotary_frequencies(*layer.rope, spec.rotary_size(*layer.rope),
                                                  spec.max_position_embeddings, 100);
    for (const double frequency : rotary.inverse) {
      fuzz::require(!std::isnan(frequency), "a rotary frequency is a number");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  log::set_level(log::Level::kError);
  model::ModelSpec spec;
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    spec = model::from_hugging_face(parse_json(text, "input", FileRole::kConfig), "input");
  } catch (const ConfigError&) {
    return 0;
  }
  check(spec);  // may not throw
  return 0;
}
