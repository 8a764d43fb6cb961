// Attention over ranks that share the sequences, against ops::attention over whole ones.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "qianli/data/context_deal.h"

namespace qianli::testing {

struct ContextCase {
  std::string name;
  data::ContextAlgorithm algorithm = data::ContextAlgorithm::kRing;
  int64_t size = 2, inner = 1, window = 1;
  std::vector<int64_t> starts = {0, 16};
  int64_t heads = 4, key_heads = 2, dim = 8, value_dim = 8;
  bool causal = true;
  int64_t sliding = 0;  // keys that a query sees
  double softcap = 0.0;
  bool slopes = false, sinks = false;
  data::KeptKeys kept = data::KeptKeys::kNone;

  data::ContextOptions options() const {
    return {.size = size,
            .algorithm = algorithm,
            .inner = inner,
            .window = window,
            .kept = kept,
            .causal = causal,
            .mask_window = sliding};
  }
};

// Bytes that a rank sent, forward and in all.
struct Volumes {
  double forward, total;
};

// Outputs and all gradients of each rank within the tolerance of the whole's largest number; what
// each rank sent.
std::vector<Volumes> check(const ContextCase& c, at::ScalarType dtype, double tolerance);
// In float64 within 1e-10, and with the kernels in float32 within 1e-5.
void check_all(const ContextCase& c);

}  // namespace qianli::testing
