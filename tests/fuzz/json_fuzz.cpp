// JSON text behind the limits of qianli::parse_json.
#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const Json value = parse_json(text, "input", FileRole::kConfig);
    const std::string printed = value.dump();
    fuzz::require(parse_json(printed, "printed", FileRole::kConfig) == value,
                  "what is printed reads as what was read");
  } catch (const ConfigError&) {
  }
  return 0;
}
