#include <vector>

#include "qianli/base/error.h"
#include "qianli/formats/torch_file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  try {
    const auto file =
        formats::TorchFile::parse(fuzz::bytes(data, size), "input", FileRole::kCheckpoint);
    const auto source = formats::open_torch_source(file, file->root());
    for (const formats::TensorSpec& tensor : source->tensors()) {
      if (const auto bytes = source->view(tensor)) {
        fuzz::require(bytes->size() == tensor.num_bytes(), "bytes agree with shape and dtype");
        fuzz::touch(*bytes);
      } else if (tensor.num_bytes() < (1 << 20)) {
        std::vector<std::byte> bytes_of_tensor(tensor.num_bytes());
        source->read(tensor, bytes_of_tensor);
      }
    }
  } catch (const CheckpointError&) {
  }
  return 0;
}
