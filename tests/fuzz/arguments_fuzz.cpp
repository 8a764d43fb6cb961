// The arguments of a Megatron checkpoint from strangers, as JSON: what is accepted is a model whose
// table can be made, in a layout of bounded size. It may be of no family, so every form that it can
// be written in has a place for each of its parameters or refuses it.
#include <functional>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/convert/gguf/spec.h"
#include "qianli/convert/gguf/tensors.h"
#include "qianli/convert/megatron/arguments.h"
#include "qianli/convert/megatron/stored_arguments.h"
#include "qianli/convert/megatron/tensors.h"
#include "qianli/convert/mindspore/mindspore.h"
#include "qianli/model/hugging_face.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/value_of_json.h"

namespace {

using namespace qianli;
using formats::Value;

constexpr int64_t kFewLayers = 40, kFewExperts = 20, kSmallHeads = 256;

bool is_small(const model::ModelSpec& spec) {
  return spec.num_layers + spec.mtp.num_layers <= kFewLayers &&
         spec.num_attention_heads <= kFewLayers && spec.head_dim <= kSmallHeads &&
         (!spec.moe || spec.moe->num_experts <= kFewExperts);
}

void unless_refused(const std::function<void()>& write) {
  try {
    write();
  } catch (const ConfigError&) {
  }
}

void check_targets(const model::ModelSpec& spec) {
  const auto table = model::parameter_table(spec);
  unless_refused([&] { model::to_hugging_face(spec); });
  unless_refused([&] { convert::mindformers_tensors(spec, table); });
  unless_refused([&] { convert::megatron_tensors(spec, table, {}); });
  convert::megatron_arguments(spec, {}, formats::Dtype::kF32);
  unless_refused([&] {
    const convert::GgufArchitecture& architecture = convert::gguf_architecture_of(spec);
    convert::keys_of_spec(convert::as_gguf_tells(spec, architecture), architecture);
    convert::gguf_tensors(spec, table, architecture);
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  log::set_level(log::Level::kError);
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const Value args = testing::value_of(parse_json(text, "input", FileRole::kCheckpoint));
    const convert::StoredArguments stored(&args, "input");
    fuzz::require(convert::megatron_ranks(convert::layout_of(stored)).size() <= 100000,
                  "a layout has so many ranks");
    const model::ModelSpec spec = convert::spec_of_arguments(stored, 128);
    fuzz::require(model::parameter_count(spec) > 0, "a model has parameters");
    if (is_small(spec)) check_targets(spec);
  } catch (const CheckpointError&) {
  }
  return 0;
}
