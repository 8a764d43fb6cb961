// Sums over the ranks that share the sequences.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/dist/group.h"
#include "qianli/nn/decoder_input.h"
#include "qianli/ops/balancing_loss.h"

namespace qianli::nn {

// The sum over the ranks of `group`. Its gradient goes to this rank's part: all ranks compute what
// follows alike, and count it once.
at::Tensor sum_over(const at::Tensor& own, const dist::Group& group);

// The segments of the pass for losses of the whole microbatch.
ops::TokenSegments token_segments(const DecoderInput& input, const dist::Group& context);

}  // namespace qianli::nn
