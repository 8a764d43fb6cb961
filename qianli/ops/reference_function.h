// The reference back end of an op: a formula composed of ATen calls, differentiated by autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "qianli/ops/parameter.h"

namespace qianli::ops {

using Tensors = std::vector<at::Tensor>;

// Evaluates `formula(inputs, weights)`, where weights are the parameters' values. The result carries
// gradients to `inputs` through autograd and to the parameters through their buffers: the backward pass
// runs the formula again with recording on. Slow, general, and the oracle of every kernel.
Tensors apply_reference(std::function<Tensors(const Tensors& inputs, const Tensors& weights)> formula,
                        const Tensors& inputs, std::vector<Parameter*> parameters);

}  // namespace qianli::ops
