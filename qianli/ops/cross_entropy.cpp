#include "qianli/ops/cross_entropy.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>

#include "qianli/ops/block_weight.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/gemm.h"
#include "qianli/ops/linear.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Each chunk reads and writes the whole weight gradient once, so chunks are large: a few hundred
// rows.
constexpr int64_t kChunkBytes = int64_t{128} << 20;
constexpr int64_t kMinimumRows = 128;

int64_t chunk_rows(int64_t rows, int64_t vocabulary, int64_t item_bytes) {
  const int64_t wanted =
      std::max(kMinimumRows, kChunkBytes / std::max<int64_t>(1, vocabulary * item_bytes));
  const int64_t chunks = std::max<int64_t>(1, (rows + wanted - 1) / wanted);
  return (rows + chunks - 1) / chunks;  // even chunks: no small one at the end
}

at::Tensor capped(const at::Tensor& logits, const OutputLayer& layer) {
  const at::Tensor scaled = layer.multiplier == 1.0 ? logits : logits * layer.multiplier;
  return layer.softcap > 0.0 ? layer.softcap * at::tanh(scaled / layer.softcap) : scaled;
}

// 1 / the length of each row of the weight, [V], in float32 or float64.
at::Tensor inverse_lengths(const at::Tensor& weight) {
  const at::ScalarType wide = weight.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return at::linalg_vector_norm(weight, 2, at::IntArrayRef{1}, /*keepdim=*/false, wide)
      .clamp_min(1e-12)
      .reciprocal();
}

// The same where every rank has the logits of its rows only: the softmax is over all ranks'.
void shared_chunk_losses(at::Tensor& logits, const OutputLayer& layer, const at::Tensor& labels,
                         const at::Tensor& weights, at::Tensor losses, bool want_grad) {
  const at::Tensor final_logits = capped(logits, layer).to(losses.scalar_type());
  const at::Tensor largest = final_logits.amax(1);
  layer.sharers->all_reduce(largest, dist::Reduction::kMax);
  const at::Tensor exponentials = (final_logits - largest.unsqueeze(1)).exp();
  const at::Tensor counted = weights != 0;
  const at::Tensor place = labels - layer.first_row;
  const at::Tensor own = counted.logical_and(place >= 0).logical_and(place < logits.size(1));
  const at::Tensor column = at::where(own, place, at::zeros_like(place)).unsqueeze(1);
  const at::Tensor at_label = final_logits.gather(1, column).squeeze(1) * own;
  const at::Tensor sums = at::stack({exponentials.sum(1), at_label});
  layer.sharers->all_reduce(sums);
  losses.copy_((sums[0].log() + largest - sums[1]) * counted);
  if (!want_grad) return;
  const at::Tensor scale = weights.to(losses.scalar_type()).unsqueeze(1);
  at::Tensor grad = exponentials * (scale / sums[0].unsqueeze(1));
  grad.scatter_add_(1, column, -scale * own.unsqueeze(1));
  if (layer.softcap > 0.0) grad = grad * (1.0 - (final_logits / layer.softcap).square());
  logits.copy_(grad * layer.multiplier);
}

// Losses of one chunk of x W^T + b; with `want_grad` the logits become their own gradient.
void chunk_losses(at::Tensor& logits, const OutputLayer& layer, const at::Tensor& labels,
                  const at::Tensor& weights, at::Tensor losses, bool want_grad) {
  if (layer.sharers) return shared_chunk_losses(logits, layer, labels, weights, losses, want_grad);
  if (const KernelTable* kernels = kernels_for(Op::kCrossEntropy, logits)) {
    kernels->cross_entropy({.dtype = kernel_dtype(logits),
                            .rows = logits.size(0),
                            .vocabulary = logits.size(1),
                            .logits = logits.data_ptr(),
                            .labels = labels.data_ptr<int64_t>(),
                            .weights = weights.data_ptr<float>(),
                            .losses = losses.data_ptr<float>(),
                            .keep_logits = !want_grad,
                            .multiplier = layer.multiplier,
                            .softcap = layer.softcap},
                           stream_of(logits));
    return;
  }
  const at::Tensor counted = weights != 0;
  const at::Tensor safe_labels = at::where(counted, labels, at::zeros_like(labels));
  const at::Tensor final_logits = capped(logits, layer);
  losses.copy_(reference::cross_entropy(final_logits, safe_labels) * counted);
  if (!want_grad) return;
  const at::Tensor scale = weights.to(logits.scalar_type()).unsqueeze(1);
  at::Tensor grad =
      (at::softmax(final_logits, 1) * scale).scatter_add(1, safe_labels.unsqueeze(1), -scale);
  if (layer.softcap > 0.0) grad = grad * (1.0 - (final_logits / layer.softcap).square());
  logits.copy_(grad * layer.multiplier);
}

// Rows that count whose label has the largest logit. The switches between raw and final logits keep
// their order.
at::Tensor correct_rows(const at::Tensor& logits, const OutputLayer& layer,
                        const at::Tensor& labels, const at::Tensor& weights) {
  const at::Tensor counted = weights != 0;
  const at::Tensor place = labels - layer.first_row;
  const at::Tensor own = counted.logical_and(place >= 0).logical_and(place < logits.size(1));
  const at::Tensor column = at::where(own, place, at::zeros_like(place)).unsqueeze(1);
  const at::Tensor at_label = logits.gather(1, column).squeeze(1).masked_fill(
      ~own, -std::numeric_limits<double>::infinity());
  at::Tensor largest = at::stack({logits.amax(1), at_label});
  if (layer.sharers) layer.sharers->all_reduce(largest, dist::Reduction::kMax);
  return (largest[1] >= largest[0]).logical_and(counted).sum();
}

// The dot product of each row of a with the row of b, [V], without a third matrix.
at::Tensor row_dots(const at::Tensor& a, const at::Tensor& b) {
  constexpr int64_t kRows = 2048;
  at::Tensor dots = at::empty({a.size(0)}, a.options());
  for (int64_t begin = 0; begin < a.size(0); begin += kRows) {
    const int64_t rows = std::min(kRows, a.size(0) - begin);
    dots.narrow(0, begin, rows).copy_((a.narrow(0, begin, rows) * b.narrow(0, begin, rows)).sum(1));
  }
  return dots;
}

// Rows w divided by their length, w_hat = w / |w|, get dw = (dw_hat - w_hat (w_hat dw_hat)) / |w|.
// The chunks add the first part, dw_hat / |w|, to the buffer themselves; with it goes the second,
// from what they added.
class NormalizedRows {
 public:
  NormalizedRows(Parameter& weight, bool active, bool record)
      : weight_(weight), corrects_(active && record && weight.trainable()) {
    if (active) scale_ = inverse_lengths(weight.value());
    if (corrects_) before_ = row_dots(weight_.grad_to_add(), weight_.value());
  }
  // Of the columns of logits, and of their gradients.
  void scale(at::Tensor& columns) const {
    if (scale_.defined()) columns.mul_(scale_);
  }
  void finish() {
    if (!corrects_) return;
    at::Tensor& buffer = weight_.grad_to_add();
    const at::Tensor along = (row_dots(buffer, weight_.value()) - before_) * scale_.square();
    constexpr int64_t kRows = 2048;
    for (int64_t begin = 0; begin < buffer.size(0); begin += kRows) {
      const int64_t rows = std::min(kRows, buffer.size(0) - begin);
      buffer.narrow(0, begin, rows)
          .sub_(weight_.value().narrow(0, begin, rows) * along.narrow(0, begin, rows).unsqueeze(1));
    }
  }

 private:
  Parameter& weight_;
  bool corrects_;
  at::Tensor scale_, before_;
};

// Rows that count, picked out: the others have no loss and no gradient, and instruction data have
// many of them.
class CountedRows {
 public:
  // Takes all of them on a device, which would have to be waited for.
  explicit CountedRows(const at::Tensor& weights) : rows_(weights.size(0)) {
    if (!weights.is_cpu()) return;
    const at::Tensor counted = weights.nonzero().squeeze(1);
    if (counted.size(0) < rows_) counted_ = counted;
  }
  at::Tensor pick(const at::Tensor& all) const {
    return counted_.defined() ? all.index_select(0, counted_) : all;
  }
  // To where they were; zeros elsewhere.
  at::Tensor put_back(const at::Tensor& picked) const {
    if (!counted_.defined()) return picked;
    std::vector<int64_t> shape = picked.sizes().vec();
    shape.front() = rows_;
    return at::zeros(shape, picked.options()).index_copy_(0, counted_, picked);
  }

 private:
  int64_t rows_;
  at::Tensor counted_;  // undefined: all
};

// Rows of the hidden state with what they are to predict, and parts of them.
struct PredictingRows {
  at::Tensor x, labels, weights;
  int64_t first = 0;

  std::vector<PredictingRows> in_chunks(const OutputLayer& layer) const {
    const int64_t rows = x.size(0);
    // The same for all ranks, which compute the chunks together.
    const int64_t columns = layer.sharers ? (layer.vocabulary - 1) / layer.sharers->size() + 1
                                          : layer.weight.value().size(0);
    const int64_t step = chunk_rows(rows, columns, x.element_size());
    std::vector<PredictingRows> chunks;
    for (int64_t begin = 0; begin < rows; begin += step) {
      const int64_t count = std::min(step, rows - begin);
      chunks.push_back({x.narrow(0, begin, count), labels.narrow(0, begin, count),
                        weights.narrow(0, begin, count), begin});
    }
    return chunks;
  }
};

class LinearCrossEntropyFunction : public torch::autograd::Function<LinearCrossEntropyFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& hidden,
                               const at::Tensor&, const OutputLayer& layer,
                               const at::Tensor& labels, const at::Tensor& weights,
                               const at::Tensor* correct, bool record) {
    const CountedRows counted(weights);
    const PredictingRows all{.x = counted.pick(hidden),
                             .labels = counted.pick(labels),
                             .weights = counted.pick(weights)};
    const at::ScalarType wide = hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor losses = at::empty({all.x.size(0)}, hidden.options().dtype(wide));
    const at::Tensor grad_x = record ? at::empty_like(all.x) : at::Tensor();
    NormalizedRows normalized(layer.weight, layer.normalized_rows, record);
    for (const PredictingRows& chunk : all.in_chunks(layer)) {
      at::Tensor logits = raw_logits(chunk.x, layer, normalized);
      if (correct->defined())
        correct->add_(correct_rows(logits, layer, chunk.labels, chunk.weights));
      const auto own = [&](const at::Tensor& of) {
        return of.narrow(0, chunk.first, chunk.x.size(0));
      };
      chunk_losses(logits, layer, chunk.labels, chunk.weights, own(losses), record);
      if (record) own(grad_x).copy_(chunk_gradients(chunk.x, layer, normalized, logits));
    }
    if (record) {
      normalized.finish();
      context->save_for_backward({counted.put_back(grad_x)});
    }
    const at::Tensor every_loss = counted.put_back(losses);
    context->mark_non_differentiable({every_loss});
    return {(losses * all.weights).sum(), every_loss};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    TORCH_CHECK(!grads[0].is_cpu() || grads[0].item<double>() == 1.0,
                "linear_cross_entropy must end the graph: its gradient must be 1");
    return {context->get_saved_variables()[0], {}, {}, {}, {}, {}, {}};
  }

 private:
  static at::Tensor raw_logits(const at::Tensor& x, const OutputLayer& layer,
                               const NormalizedRows& normalized) {
    const at::Tensor bias = layer.bias ? layer.bias->value() : at::Tensor();
    if (!layer.normalized_rows) return product_nt(x, layer.weight.value(), bias);
    at::Tensor logits = gemm_nt(x, layer.weight.value());
    normalized.scale(logits);
    return bias.defined() ? logits.add_(bias) : logits;
  }

  // From the gradient of the logits to that of x; those of the parameters go to their buffers.
  static at::Tensor chunk_gradients(const at::Tensor& x, const OutputLayer& layer,
                                    const NormalizedRows& normalized, at::Tensor& grad) {
    if (layer.bias && layer.bias->trainable()) {
      at::Tensor& buffer = layer.bias->grad_to_add();
      buffer.add_(grad.sum(0, /*keepdim=*/false, buffer.scalar_type()));
    }
    normalized.scale(grad);
    if (layer.weight.trainable()) accumulate_weight_gradient(layer.weight, grad, x);
    return gemm_nt(grad, layer.weight.value().t());
  }
};

bool trainable(const OutputLayer& layer) {
  return layer.weight.trainable() || (layer.bias && layer.bias->trainable());
}

void check_layer(const at::Tensor& hidden, const OutputLayer& layer) {
  TORCH_CHECK(hidden.dim() == 2 && layer.weight.value().dim() == 2 &&
                  hidden.size(1) == layer.weight.value().size(1),
              "[output] expected hidden [T, H] and weight [V, H], got ", hidden.sizes(), " and ",
              layer.weight.value().sizes());
  TORCH_CHECK(layer.multiplier > 0.0, "[output] expected a positive logits multiplier, got ",
              layer.multiplier);
}

}  // namespace

CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden, const OutputLayer& layer,
                                        const at::Tensor& labels, const at::Tensor& weights,
                                        const at::Tensor& correct) {
  check_layer(hidden, layer);
  const bool record = at::GradMode::is_enabled() && (hidden.requires_grad() || trainable(layer));
  const at::Tensor anchor = trainable(layer) ? gradient_anchor() : gradient_anchor().detach();
  const auto results =
      LinearCrossEntropyFunction::apply(hidden.contiguous(), anchor, layer, labels.contiguous(),
                                        weights.contiguous(), &correct, record);
  return {results[0], results[1]};
}

CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden, Parameter& weight,
                                        const at::Tensor& labels, const at::Tensor& weights) {
  return linear_cross_entropy(hidden, OutputLayer{.weight = weight}, labels, weights);
}

at::Tensor output_logits(const at::Tensor& hidden, const OutputLayer& layer) {
  check_layer(hidden, layer);
  if (!layer.normalized_rows) return capped(linear(hidden, layer.weight, layer.bias), layer);
  if (at::GradMode::is_enabled() && layer.weight.trainable()) {
    std::vector<Parameter*> parameters{&layer.weight};
    if (layer.bias) parameters.push_back(layer.bias);
    const auto formula = [layer](const Tensors& inputs, const Tensors& values) {
      return Tensors{reference::output_logits(inputs[0], values[0],
                                              values.size() > 1 ? values[1] : at::Tensor(), layer)};
    };
    return apply_reference(formula, {hidden}, parameters)[0];
  }
  at::Tensor logits =
      linear(hidden, layer.weight) * inverse_lengths(layer.weight.value()).to(hidden.scalar_type());
  if (layer.bias) logits = logits + layer.bias->value();
  return capped(logits, layer);
}

namespace reference {

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& labels) {
  const at::Tensor wide = logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
  return at::logsumexp(wide, 1) - wide.gather(1, labels.unsqueeze(1)).squeeze(1);
}

at::Tensor output_logits(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                         const OutputLayer& layer) {
  const at::Tensor rows =
      layer.normalized_rows ? weight * inverse_lengths(weight).to(weight.scalar_type()).unsqueeze(1)
                            : weight;
  const at::Tensor logits = hidden.matmul(rows.t());
  return capped(bias.defined() ? logits + bias : logits, layer);
}

}  // namespace reference

}  // namespace qianli::ops
