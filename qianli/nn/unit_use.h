// Who makes parameters whole where they are kept in slices, and learns when gradients are there: a
// forward pass tells it which units of parameters (nn/flat_layout.h) it comes to and leaves.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace qianli::nn {

using Units = std::vector<size_t>;  // of the ParameterSet

class UnitUse {
 public:
  virtual ~UnitUse() = default;
  virtual void before_forward(const Units& units) = 0;
  // `outputs`: all that what was computed in between hands on with a gradient. The backward pass
  // comes to the units where the first of these gets its gradient. None: the gradients were made on
  // the way, and the backward pass has nothing to do there.
  virtual void after_forward(const Units& units, const std::vector<at::Tensor>& outputs) = 0;
};

}  // namespace qianli::nn
