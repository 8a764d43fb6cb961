// metrics.jsonl of a run, and its comparison with itself.
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/runs/compare_metrics.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    int64_t last = -1, steps = 0;
    runs::MetricsReader reader(text, "input");
    while (const auto record = reader.next()) {
      fuzz::require(record->step > last, "steps ascend");
      last = record->step;
      ++steps;
      for (const auto& [key, value] : record->values)
        fuzz::require(!std::isinf(value), "a value is a number or NaN");
    }
    const runs::MetricsReader again(text, "input");
    const auto found = runs::compare_metrics(again, again, 0);
    fuzz::require(found.equal() && found.steps == steps, "a file is as it is");
  } catch (const DataError&) {
  }
  return 0;
}
