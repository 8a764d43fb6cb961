// The output layer and its cross entropy in one op that never holds the full logits: rows are taken in
// chunks, and each chunk's logits turn into their own gradient in place.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/parameter.h"

namespace qianli::ops {

struct CrossEntropyResult {
  at::Tensor loss;    // scalar: sum over rows of weights * losses, carries the gradient
  at::Tensor losses;  // [T] float32: -log p(label) of each row, 0 where the weight is 0
};

// hidden: [T, H]; weight: [V, H]; labels: [T] int64 (read only where weights != 0); weights: [T] float32.
//
// While gradients are recorded, the gradients of hidden and weight are computed during the forward pass,
// because keeping the logits or computing them twice would cost more. Hence the contract: the returned
// loss is the end of the graph, and backward() is called on it once, with gradient 1.
CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden, Parameter& weight, const at::Tensor& labels,
                                        const at::Tensor& weights);

namespace reference {
// Per-row losses of given logits: [T, V] -> [T].
at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& labels);
}

}  // namespace qianli::ops
