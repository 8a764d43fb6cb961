// A residual stream of several rows per token (Xie et al., arXiv:2512.24880). Shapes: T tokens, n
// rows of h each, one behind the other.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "qianli/nn/parameter_set.h"
#include "qianli/ops/hyper_connection.h"

namespace qianli::nn {

// Of one block, or of the end, where the rows become one.
class HyperConnection {
 public:
  // Its parameters are called `prefix`.weight, .bias and .scale; none there: it is empty. `mixes`:
  // it is that of a block.
  HyperConnection(const model::ModelSpec& spec, ParameterSet& parameters, const std::string& prefix,
                  bool mixes);
  explicit operator bool() const { return weight_ != nullptr; }

  struct Read {
    at::Tensor x;     // [T, h], what the block gets
    at::Tensor join;  // [T, n], how much of its output joins each row
    at::Tensor mix;   // [T, n, n]: row k becomes the sum over j of mix[j, k] times row j
  };
  // streams: [T, n h]. At the end x alone.
  Read read(const at::Tensor& streams) const;
  // y: [T, h]. Returns [T, n h].
  at::Tensor join(const at::Tensor& streams, const Read& read, const at::Tensor& y) const;

 private:
  ops::Parameter *weight_, *bias_, *scale_;
  ops::HyperShape shape_;
  double norm_eps_;
};

// A stream that begins: every row is x. [T, h] -> [T, n h].
at::Tensor repeated_rows(const at::Tensor& x, const model::ModelSpec& spec);

}  // namespace qianli::nn
