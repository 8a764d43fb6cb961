#include "qianli/base/error.h"
#include "qianli/formats/npy.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  try {
    const auto array = formats::parse_npy(fuzz::bytes(data, size), "input", FileRole::kData);
    fuzz::touch(array.bytes);
    int64_t elements = 1;
    for (const int64_t dimension : array.shape) elements *= dimension;
    fuzz::require(elements == array.num_elements(), "data agrees with the shape");
    const auto values = array.values<int32_t>();
    fuzz::require(values.size() == static_cast<size_t>(elements), "one value per element");
  } catch (const DataError&) {
  }
  return 0;
}
