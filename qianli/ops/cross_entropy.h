// The output layer and its cross entropy in one op that never holds the full logits: rows are taken
// in chunks, and each chunk's logits turn into their own gradient in place.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/dist/group.h"
#include "qianli/ops/parameter.h"

namespace qianli::ops {

// logits z = cap(multiplier * (x W^T + bias)), cap(y) = softcap tanh(y / softcap) or y.
struct OutputLayer {
  Parameter& weight;          // [V, H]
  Parameter* bias = nullptr;  // [V]
  double multiplier = 1.0;    // positive (Grok-1, Command-R)
  double softcap = 0.0;       // 0: none (Gemma 2: 30)
  // W stands for its rows divided by their length (Baichuan2's NormHead). Rows are never stored
  // normalised here; a model that only infers may do that once and leave this off.
  bool normalized_rows = false;
  // The weight has the rows from `first_row` on of the `vocabulary` rows, which the ranks of
  // `sharers` have together; null: all of them. Each then gets a part of hidden's gradient, whose
  // sum is the gradient.
  const dist::Group* sharers = nullptr;
  int64_t vocabulary = 0;
  int64_t first_row = 0;
};

struct CrossEntropyResult {
  at::Tensor loss;    // scalar: sum over rows of weights * losses, carries the gradient
  at::Tensor losses;  // [T] float32: -log p(label) of each row, 0 where the weight is 0
};

// hidden: [T, H]; labels: [T] int64 (read only where weights != 0); weights: [T] float32.
//
// While gradients are recorded, the gradients of hidden and of the layer's parameters are computed
// during the forward pass, because keeping the logits or computing them twice would cost more.
// Hence the contract: the returned loss is the end of the graph, and backward() is called on it
// once, with gradient 1.
//
// `correct`, where defined, is a float64 scalar: to it are added the rows with a weight whose label
// has the largest logit (or one of equals).
CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden, const OutputLayer& layer,
                                        const at::Tensor& labels, const at::Tensor& weights,
                                        const at::Tensor& correct = {});
CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden, Parameter& weight,
                                        const at::Tensor& labels, const at::Tensor& weights);

// The logits themselves, [T, V], differentiable: for generation and for losses of other kinds.
// Where the vocabulary is shared, those of the rank's rows.
at::Tensor output_logits(const at::Tensor& hidden, const OutputLayer& layer);

namespace reference {
// Per-row losses of given logits: [T, V] -> [T].
at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& labels);
// weight: [V, H]; bias: [V] or undefined; the switches of `layer`, whose parameters are not read.
at::Tensor output_logits(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                         const OutputLayer& layer);
}  // namespace reference

}  // namespace qianli::ops
