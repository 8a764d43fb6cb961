#include "qianli/base/error.h"
#include "qianli/formats/mindspore_checkpoint.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  try {
    const auto contents =
        formats::parse_mindspore(fuzz::bytes(data, size), "input", FileRole::kCheckpoint);
    size_t total = 0;
    for (const auto& tensor : contents.tensors) {
      size_t bytes = 0;
      for (const auto& piece : tensor.pieces) {
        fuzz::touch(piece);
        bytes += piece.size();
      }
      fuzz::require(bytes == tensor.spec.num_bytes(), "bytes agree with shape and dtype");
      total += bytes;
    }
    fuzz::require(total <= size, "tensors do not overlap");
  } catch (const CheckpointError&) {
  }
  return 0;
}
