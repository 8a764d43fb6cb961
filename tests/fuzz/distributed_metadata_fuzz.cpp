#include "qianli/base/error.h"
#include "qianli/formats/distributed_checkpoint.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  try {
    const auto metadata = formats::parse_distributed_metadata(fuzz::bytes(data, size), "input",
                                                              FileRole::kCheckpoint);
    for (const auto& tensor : metadata.tensors) {
      int64_t elements = 0;
      for (const auto& chunk : tensor.chunks) {
        int64_t volume = 1;
        for (size_t axis = 0; axis < chunk.sizes.size(); ++axis) {
          fuzz::require(chunk.offsets[axis] + chunk.sizes[axis] <= tensor.spec.shape[axis],
                        "a chunk is within its tensor");
          volume *= chunk.sizes[axis];
        }
        elements += volume;
      }
      fuzz::require(elements == tensor.spec.num_elements(), "chunks fill their tensor");
    }
  } catch (const CheckpointError&) {
  }
  return 0;
}
