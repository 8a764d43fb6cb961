#include "qianli/ops/attention_part.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "qianli/ops/attention_call.h"
#include "qianli/ops/dispatch.h"

namespace qianli::ops {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// [heads, Tq] -> [Tq, heads, 1]
at::Tensor by_row(const at::Tensor& x) { return x.t().unsqueeze(-1); }

// exp(x - lse), 0 where no key was seen.
at::Tensor exp_from(const at::Tensor& x, const at::Tensor& lse) {
  return at::exp(x - lse.masked_fill(lse == -kInfinity, 0.0));
}

// One sequence of a call, heads first, key heads repeated for their queries.
struct SequenceRows {
  int64_t q_start, q_rows, k_start, k_rows;

  static SequenceRows of(const AttentionLayout& layout, size_t s) {
    return {layout.q_starts[s], layout.q_starts[s + 1] - layout.q_starts[s], layout.k_starts[s],
            layout.k_starts[s + 1] - layout.k_starts[s]};
  }
  bool empty() const { return q_rows == 0 || k_rows == 0; }
  at::Tensor queries(const at::Tensor& x) const {
    return x.narrow(0, q_start, q_rows).transpose(0, 1);
  }
  at::Tensor keys(const at::Tensor& x, int64_t heads) const {
    return x.narrow(0, k_start, k_rows).transpose(0, 1).repeat_interleave(heads / x.size(1), 0);
  }
};

// [heads, Sq, Sk], -infinity where a query does not see a key.
at::Tensor visible_scores(const at::Tensor& q, const at::Tensor& k, const AttentionLayout& layout,
                          size_t s) {
  return reference::scores(q, k, layout, s)
      .masked_fill(reference::visible_keys(layout, s, q.device()).logical_not(), -kInfinity);
}

AttentionPart reference_part(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const AttentionLayout& layout) {
  const auto wide = q.options().dtype(q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  AttentionPart part{at::zeros({q.size(0), q.size(1), v.size(2)}, q.options()),
                     at::full({q.size(1), q.size(0)}, -kInfinity, wide)};
  for (size_t s = 0; s + 1 < layout.q_starts.size(); ++s) {
    const auto rows = SequenceRows::of(layout, s);
    if (rows.empty()) continue;
    const at::Tensor scores = visible_scores(rows.queries(q), rows.keys(k, q.size(1)), layout, s);
    const at::Tensor lse = at::logsumexp(scores, {-1});
    const at::Tensor weights = reference::dropped(exp_from(scores, lse.unsqueeze(-1)), layout, s);
    rows.queries(part.out).copy_(weights.to(q.scalar_type()).matmul(rows.keys(v, q.size(1))));
    part.lse.narrow(1, rows.q_start, rows.q_rows).copy_(lse);
  }
  return part;
}

// With P = exp(z - lse), dropout's factors M and delta = rowsum(grad_out out), the gradient of z is
// P (M (grad_out v^T) - delta): that of sum(grad_out (P M) v) - sum(delta P) where lse is taken for
// a constant.
AttentionGradients reference_backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const AttentionLayout& layout, const AttentionPart& whole,
                                      const at::Tensor& grad_out) {
  const at::Tensor delta = (whole.out * grad_out).sum(-1).t().to(whole.lse.scalar_type());
  AttentionGradients grads{at::zeros(q.sizes(), q.options()), at::zeros(k.sizes(), k.options()),
                           at::zeros(v.sizes(), v.options())};
  for (size_t s = 0; s + 1 < layout.q_starts.size(); ++s) {
    const auto rows = SequenceRows::of(layout, s);
    if (rows.empty()) continue;
    const at::AutoGradMode recording(true);
    const auto leaf = [](const at::Tensor& x, int64_t start, int64_t count) {
      return x.detach().narrow(0, start, count).clone().requires_grad_(true);
    };
    const at::Tensor own_q = leaf(q, rows.q_start, rows.q_rows),
                     own_k = leaf(k, rows.k_start, rows.k_rows),
                     own_v = leaf(v, rows.k_start, rows.k_rows);
    const SequenceRows all{0, rows.q_rows, 0, rows.k_rows};
    const at::Tensor scores =
        visible_scores(all.queries(own_q), all.keys(own_k, q.size(1)), layout, s);
    const auto own_rows = [&](const at::Tensor& x) {
      return x.narrow(1, rows.q_start, rows.q_rows).unsqueeze(-1);
    };
    const at::Tensor weights = exp_from(scores, own_rows(whole.lse));
    const at::Tensor out = reference::dropped(weights, layout, s)
                               .to(q.scalar_type())
                               .matmul(all.keys(own_v, q.size(1)));
    const at::Tensor objective =
        (out * rows.queries(grad_out)).sum() - (weights * own_rows(delta)).sum();
    const auto found = torch::autograd::grad({objective}, {own_q, own_k, own_v});
    grads.q.narrow(0, rows.q_start, rows.q_rows).copy_(found[0]);
    grads.k.narrow(0, rows.k_start, rows.k_rows).copy_(found[1]);
    grads.v.narrow(0, rows.k_start, rows.k_rows).copy_(found[2]);
  }
  return grads;
}

}  // namespace

AttentionPart attention_part(const at::Tensor& q_given, const at::Tensor& k_given,
                             const at::Tensor& v_given, const AttentionLayout& layout) {
  TORCH_CHECK(!layout.chosen.defined(), "[attention] expected no chosen keys for a part of them");
  const at::NoGradGuard no_grad;
  const KernelTable* kernels = attention_kernels(q_given, v_given);
  if (!kernels) return reference_part(q_given, k_given, v_given, layout);
  const at::Tensor q = with_whole_heads(q_given), k = with_whole_heads(k_given),
                   v = with_whole_heads(v_given);
  AttentionPart part{at::empty({q.size(0), q.size(1), v.size(2)}, q.options()),
                     at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat))};
  const AttentionCall call(layout, nullptr, q.device());
  kernels->attention_forward(forward_call(q, k, v, part.out, part.lse, call), stream_of(q));
  return part;
}

void merge(AttentionPart& sum, const AttentionPart& part) {
  const at::NoGradGuard no_grad;
  const at::Tensor out = part.out.to(part.lse.scalar_type());
  if (!sum.out.defined()) {
    sum = {out, part.lse};
    return;
  }
  const at::Tensor lse = at::logaddexp(sum.lse, part.lse);
  sum.out = sum.out * by_row(exp_from(sum.lse, lse)) + out * by_row(exp_from(part.lse, lse));
  sum.lse = lse;
}

void add_sinks(AttentionPart& sum, const at::Tensor& sinks) {
  const at::NoGradGuard no_grad;
  const at::Tensor lse = at::logaddexp(sum.lse, sinks.unsqueeze(1));
  sum.out = sum.out * by_row(exp_from(sum.lse, lse));
  sum.lse = lse;
}

at::Tensor sink_gradient(const AttentionPart& whole, const at::Tensor& sinks,
                         const at::Tensor& grad_out) {
  const at::NoGradGuard no_grad;
  const auto dtype = whole.lse.scalar_type();
  const at::Tensor delta = (whole.out.to(dtype) * grad_out.to(dtype)).sum(-1).t();
  return -(at::exp(sinks.unsqueeze(1) - whole.lse) * delta).sum(1);
}

AttentionGradients attention_part_backward(const at::Tensor& q_given, const at::Tensor& k_given,
                                           const at::Tensor& v_given, const AttentionLayout& layout,
                                           const AttentionPart& whole, const at::Tensor& grad_out) {
  const at::NoGradGuard no_grad;
  const KernelTable* kernels = attention_kernels(q_given, v_given);
  if (!kernels) return reference_backward(q_given, k_given, v_given, layout, whole, grad_out);
  const at::Tensor q = with_whole_heads(q_given), k = with_whole_heads(k_given),
                   v = with_whole_heads(v_given), out = whole.out.contiguous(),
                   lse = whole.lse.contiguous(), grad = grad_out.contiguous();
  AttentionGradients grads{at::empty(q.sizes(), q.options()), at::empty(k.sizes(), k.options()),
                           at::empty(v.sizes(), v.options())};
  const AttentionCall call(layout, nullptr, q.device());
  kernels->attention_backward({.forward = forward_call(q, k, v, out, lse, call),
                               .grad_out = grad.data_ptr(),
                               .grad_q = grads.q.data_ptr(),
                               .grad_k = grads.k.data_ptr(),
                               .grad_v = grads.v.data_ptr(),
                               .grad_q_stride = grads.q.stride(0),
                               .grad_k_stride = grads.k.stride(0),
                               .grad_v_stride = grads.v.stride(0)},
                              stream_of(q));
  return grads;
}

}  // namespace qianli::ops
