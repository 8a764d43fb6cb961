// A part of a layer, and what stands between it and the residual stream. Blocks do not know how
// ranks share the tokens: they take linear layers of their input, and leave their output before the
// last one.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "qianli/nn/forward_pass.h"
#include "qianli/nn/layers.h"

namespace qianli::nn {

class BlockInput {
 public:
  // x: what this rank has of the stream.
  BlockInput(at::Tensor x, const ForwardPass& pass);

  // Each of x: [T, out]. What ranks gather for it is not kept for the backward pass, unless
  // whole() was called before.
  std::vector<at::Tensor> through(std::vector<Linear> linears) const;
  at::Tensor through(const Linear& linear) const { return through(std::vector{linear})[0]; }
  // x of all tokens, [T, h], for what is no linear layer; once for all who call it.
  const at::Tensor& whole() const;

 private:
  at::Tensor x_;
  Side stream_, inner_;
  int64_t slices_;
  mutable at::Tensor whole_;
};

// With several ranks a part of a sum, to which `last` is still to be applied where it is given.
struct BlockOutput {
  at::Tensor y;
  Linear last = {};

  // After `last`: [T, h].
  at::Tensor part(const Parallel& parallel) const;
  // The sum, as far as this rank has the stream.
  at::Tensor on_stream(const ForwardPass& pass) const;
};

class Block {
 public:
  virtual ~Block() = default;
  virtual BlockOutput forward(const BlockInput& x, ForwardPass& pass) = 0;
};

}  // namespace qianli::nn
