#include "qianli/base/error.h"
#include "qianli/formats/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  const auto file = fuzz::bytes(data, size);
  try {
    const auto contents = formats::parse_safetensors(file, "input", FileRole::kCheckpoint);
    size_t total = 0;
    for (const auto& entry : contents.entries) {
      fuzz::touch(entry.bytes);
      total += entry.bytes.size();
      fuzz::require(entry.num_bytes() == entry.bytes.size(), "bytes agree with shape and dtype");
      fuzz::require(entry.num_elements() >= 0, "the number of elements does not overflow");
    }
    fuzz::require(total < size, "tensors do not overlap");
  } catch (const CheckpointError&) {
  }
  return 0;
}
