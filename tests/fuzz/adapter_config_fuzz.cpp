// adapter_config.json from strangers, its regular expressions too. What is accepted has ranks and
// scales in a bounded number of steps.
#include "qianli/base/error.h"
#include "qianli/convert/adapter/config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const convert::AdapterConfig config(parse_ordered_json(text, "input", FileRole::kCheckpoint),
                                        "input");
    for (const char* module : {"model.layers.0.self_attn.q_proj", "lm_head", ""}) {
      fuzz::require(config.rank(module) >= 1, "a rank is at least 1");
      config.scale(module);
    }
  } catch (const Error&) {
  }
  return 0;
}
