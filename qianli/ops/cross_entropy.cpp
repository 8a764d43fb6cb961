#include "qianli/ops/cross_entropy.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "qianli/ops/dispatch.h"
#include "qianli/ops/gemm.h"
#include "qianli/ops/linear.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Each chunk reads and writes the whole weight gradient once, so chunks are large: a few hundred rows.
constexpr int64_t kChunkBytes = int64_t{128} << 20;
constexpr int64_t kMinimumRows = 128;

int64_t chunk_rows(int64_t rows, int64_t vocabulary, int64_t item_bytes) {
  const int64_t wanted = std::max(kMinimumRows, kChunkBytes / std::max<int64_t>(1, vocabulary * item_bytes));
  const int64_t chunks = std::max<int64_t>(1, (rows + wanted - 1) / wanted);
  return (rows + chunks - 1) / chunks;  // even chunks: no small one at the end
}

// Losses of one chunk; with `want_grad` the logits become weights * (softmax - onehot).
void chunk_losses(at::Tensor& logits, const at::Tensor& labels, const at::Tensor& weights, at::Tensor losses,
                  bool want_grad) {
  if (const KernelTable* kernels = kernels_for(Op::kCrossEntropy, logits)) {
    kernels->cross_entropy({.dtype = kernel_dtype(logits),
                            .rows = logits.size(0),
                            .vocabulary = logits.size(1),
                            .logits = logits.data_ptr(),
                            .labels = labels.data_ptr<int64_t>(),
                            .weights = weights.data_ptr<float>(),
                            .losses = losses.data_ptr<float>(),
                            .keep_logits = !want_grad},
                           stream_of(logits));
    return;
  }
  const at::Tensor counted = weights != 0;
  const at::Tensor safe_labels = at::where(counted, labels, at::zeros_like(labels));
  losses.copy_(reference::cross_entropy(logits, safe_labels) * counted);
  if (!want_grad) return;
  const at::Tensor scale = weights.to(logits.scalar_type()).unsqueeze(1);
  const at::Tensor probabilities = at::softmax(logits, 1) * scale;
  logits.copy_(probabilities.scatter_add(1, safe_labels.unsqueeze(1), -scale));
}

class LinearCrossEntropyFunction : public torch::autograd::Function<LinearCrossEntropyFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor&,
                               Parameter* weight, const at::Tensor& labels, const at::Tensor& weights, bool record) {
    const int64_t rows = hidden.size(0);
    const at::ScalarType wide = hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    at::Tensor losses = at::empty({rows}, hidden.options().dtype(wide));
    at::Tensor grad_hidden = record ? at::empty_like(hidden) : at::Tensor();
    const int64_t step = chunk_rows(rows, weight->value().size(0), hidden.element_size());
    for (int64_t begin = 0; begin < rows; begin += step) {
      const int64_t count = std::min(step, rows - begin);
      const at::Tensor x = hidden.narrow(0, begin, count);
      at::Tensor logits = gemm_nt(x, weight->value());
      chunk_losses(logits, labels.narrow(0, begin, count), weights.narrow(0, begin, count),
                   losses.narrow(0, begin, count), record);
      if (!record) continue;
      grad_hidden.narrow(0, begin, count).copy_(gemm_nt(logits, weight->value().t()));
      if (weight->trainable()) accumulate_weight_gradient(*weight, logits, x);
    }
    if (record) context->save_for_backward({grad_hidden});
    context->mark_non_differentiable({losses});
    return {(losses * weights).sum(), losses};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    TORCH_CHECK(grads[0].is_cuda() || grads[0].item<double>() == 1.0,
                "linear_cross_entropy must end the graph: its gradient must be 1");
    return {context->get_saved_variables()[0], {}, {}, {}, {}, {}};
  }
};

}  // namespace

CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden, Parameter& weight, const at::Tensor& labels,
                                        const at::Tensor& weights) {
  const bool record = at::GradMode::is_enabled() && (hidden.requires_grad() || weight.trainable());
  const at::Tensor anchor = weight.trainable() ? gradient_anchor() : gradient_anchor().detach();
  const auto results = LinearCrossEntropyFunction::apply(hidden.contiguous(), anchor, &weight, labels.contiguous(),
                                                         weights.contiguous(), record);
  return {results[0], results[1]};
}

namespace reference {
at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& labels) {
  const at::Tensor wide = logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
  return at::logsumexp(wide, 1) - wide.gather(1, labels.unsqueeze(1)).squeeze(1);
}
}  // namespace reference

}  // namespace qianli::ops
