// Weights stored in few bits with a scale per block, read as plain float32.
//
//   DeepSeek-V3   X.weight float8 [out, in], X.weight_scale_inv [ceil(out/128), ceil(in/128)] in
//                 float32, or as others have it in bf16: weight * scale of its block, in float32;
//                 the blocks at the edges are smaller.
//   gpt-oss       X_blocks uint8 [E, out, in/32, 16], X_scales uint8 [E, out, in/32], MXFP4:
//                 becomes X [E, in, out], transposed as its float model stores it.
//   DeepSeek-V4   the first form with its scales under X.scale, most often powers of two (F8_E8M0);
//                 and X.weight int8 [out, in/2], X.scale [out, in/32], MXFP4 in rows: becomes
//                 X.weight [out, in].
#pragma once

#include <memory>

#include "qianli/formats/tensor_source.h"

namespace qianli::formats {

struct BlockScaling {
  int64_t block_rows = 128;  // quantization_config.weight_block_size
  int64_t block_columns = 128;
};

// True where the source has tensors of one of these forms.
bool has_block_scaled_tensors(const TensorSource& source);

// A source in which each such pair is one F32 tensor under the name of the weight and all others
// are as they were. Refuses pairs whose shapes do not belong together.
std::unique_ptr<TensorSource> dequantize_blocks(std::unique_ptr<TensorSource> source,
                                                BlockScaling scaling = {});

}  // namespace qianli::formats
