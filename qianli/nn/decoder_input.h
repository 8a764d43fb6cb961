// What the layers of one forward pass are given.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace qianli::nn {

class KvCache;

// T tokens of one or more packed sequences.
struct DecoderInput {
  at::Tensor tokens;         // [T] int64
  at::Tensor positions;      // [T] int64
  int64_t max_position = 0;  // no position lies behind it
  std::vector<int64_t>
      segment_starts;        // [segments + 1]: 0 … T; nothing crosses from one to another
  KvCache* cache = nullptr;  // one segment only; what it holds precedes the tokens
  // Training: routers take jitter and samples, count their choices, and add their balancing losses.
  bool training = false;
  // Factor of the balancing losses in the gradient: the share of this microbatch in the step. Zero
  // in evaluation.
  double auxiliary_loss_scale = 0.0;
  // Training: of this microbatch; what routers draw is a function of it.
  uint64_t random_key = 0;
  // Training: called within the backward pass when it has left decoder layer `layer`: the gradients
  // of its parameters, and of all that the forward pass uses behind it, have arrived.
  std::function<void(int64_t layer)> after_backward;
};

}  // namespace qianli::nn
