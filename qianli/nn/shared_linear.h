// Linear layers at the borders of what ranks compute together: the exchange of tokens before or
// behind the product, and the product. In slices the exchange of one goes on while the product of
// another is made (what MindSpeed calls CoC and MC2); backward the sum of the input's gradient
// travels under the product that makes the weight's, and a gathered input, which is not kept, comes
// again under the product that makes its gradient (Korthikanti et al. 2022).
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "qianli/nn/layers.h"
#include "qianli/nn/shared_rows.h"

namespace qianli::nn {

// How ranks hold the tokens on one side of a linear layer.
struct Side {
  // Between them a value is made of parts of a sum, and so is its gradient. Null: it is not.
  const dist::Group* group = nullptr;
  // The rows that each of them holds; none: everyone holds all, and sums them.
  std::optional<SharedRows> rows = {};

  // All rows from what this rank holds, and what it holds of a sum from its part of that; each is
  // the other's gradient.
  at::Tensor enter(const at::Tensor& held) const;
  at::Tensor leave(const at::Tensor& parts) const;

  // Without a graph.
  MovingRows start_entering(const at::Tensor& held) const;
  // `parts` may be overwritten.
  MovingRows start_leaving(const at::Tensor& parts) const;
};

struct SharedLinears {
  std::vector<Linear> linears;  // of the same input
  Side in, out;                 // the groups must outlive the graph
  int64_t slices = 1;
};

// Of each linear x W^T + b, where the first rank of `out` adds the bias. x: what this rank holds on
// the side `in`; returns what it holds on the side `out`.
std::vector<at::Tensor> shared_linear(const at::Tensor& x, SharedLinears call);

}  // namespace qianli::nn
