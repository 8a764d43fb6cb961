#include <vector>

#include "qianli/base/error.h"
#include "qianli/formats/gguf.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  try {
    const auto contents =
        formats::parse_gguf(fuzz::bytes(data, size), "input", FileRole::kCheckpoint);
    for (const auto& [key, value] : contents.metadata) {
      if (const auto* array = std::get_if<formats::GgufValue::Array>(&value.value)) {
        fuzz::require(array->count <= array->bytes.size(), "an element has at least a byte");
        fuzz::touch(array->bytes);
      }
    }
    size_t total = 0;
    for (const auto& tensor : contents.tensors) {
      fuzz::touch(tensor.bytes);
      total += tensor.bytes.size();
      const auto elements = static_cast<size_t>(tensor.spec.num_elements());
      if (!formats::can_dequantize(tensor.type)) continue;
      std::vector<float> numbers(elements);
      formats::dequantize(tensor.type, tensor.bytes, numbers);
    }
    fuzz::require(total <= size, "tensors do not overlap");
  } catch (const CheckpointError&) {
  }
  return 0;
}
