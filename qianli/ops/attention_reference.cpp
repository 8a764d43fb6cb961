// Attention spelled out, and what belongs to its contract beside the kernels.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include "qianli/ops/attention.h"

namespace qianli::ops {
namespace {

// The keys of one sequence that its queries [Sq, n] list, as [Sq, Sk] bool.
at::Tensor listed(const at::Tensor& chosen, int64_t k_length) {
  // Entries that are no key go to a column of their own.
  const at::Tensor valid = (chosen >= 0).logical_and(chosen < k_length);
  const at::Tensor columns = at::where(valid, chosen, at::full_like(chosen, k_length));
  at::Tensor mask = at::zeros({chosen.size(0), k_length + 1}, chosen.options().dtype(at::kBool));
  mask.scatter_(1, columns, true);
  return mask.narrow(1, 0, k_length);
}

}  // namespace

at::Tensor alibi_slopes(int64_t heads) {
  TORCH_CHECK(heads > 0, "[attention] expected at least one head for the slopes of ALiBi");
  const int64_t power = int64_t{1} << (63 - __builtin_clzll(static_cast<uint64_t>(heads)));
  at::Tensor slopes = at::empty({heads}, at::kDouble);
  double* slope = slopes.data_ptr<double>();
  for (int64_t i = 0; i < power; ++i)
    slope[i] = std::exp2(-8.0 * static_cast<double>(i + 1) / static_cast<double>(power));
  for (int64_t i = power; i < heads; ++i) {
    const int64_t second = 2 * (i - power);  // of the slopes for twice as many heads
    slope[i] = std::exp2(-8.0 * static_cast<double>(second + 1) / static_cast<double>(2 * power));
  }
  return slopes;
}

namespace reference {

at::Tensor visible_keys(const AttentionLayout& layout, size_t s, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const int64_t q_length = layout.q_starts[s + 1] - layout.q_starts[s];
  const int64_t k_length = layout.k_starts[s + 1] - layout.k_starts[s];
  const at::Tensor distance = at::arange(q_length, options).unsqueeze(1) + layout.offset(s) -
                              at::arange(k_length, options).unsqueeze(0);
  at::Tensor mask = layout.causal ? distance >= 0 : distance == distance;
  if (layout.window > 0) mask = mask & (distance < layout.window);
  return mask;
}

at::Tensor dropped(const at::Tensor& probabilities, const AttentionLayout& layout, size_t s) {
  if (layout.dropout.threshold == 0) return probabilities;
  const at::Tensor origins =
      at::arange(probabilities.size(1),
                 probabilities.options().dtype(at::kLong).requires_grad(false))
          .add_(layout.origins[s] + layout.offset(s));
  return probabilities * dropout_factors(layout.dropout, origins, layout.origins[s] & 0xffffffff,
                                         probabilities.size(2), layout.first_head,
                                         probabilities.size(0), probabilities.scalar_type());
}

at::Tensor scores(const at::Tensor& q, const at::Tensor& k, const AttentionLayout& layout,
                  size_t s) {
  const at::ScalarType wide = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor scores = q.matmul(k.transpose(1, 2)).to(wide) * layout.scale;
  if (layout.softcap > 0.0) scores = layout.softcap * at::tanh(scores / layout.softcap);
  if (!layout.slopes.defined()) return scores;
  const auto options = q.options().dtype(wide).requires_grad(false);
  const at::Tensor distance = at::arange(k.size(1), options).unsqueeze(0) -
                              (at::arange(q.size(1), options) + layout.offset(s)).unsqueeze(1);
  return scores + layout.slopes.to(options).view({-1, 1, 1}) * distance;
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionLayout& layout, const at::Tensor& sinks) {
  const int64_t repeats = q.size(1) / k.size(1);
  std::vector<at::Tensor> parts;
  for (size_t s = 0; s + 1 < layout.q_starts.size(); ++s) {
    const int64_t q_rows = layout.q_starts[s + 1] - layout.q_starts[s];
    const int64_t k_rows = layout.k_starts[s + 1] - layout.k_starts[s];
    const at::Tensor qs = q.narrow(0, layout.q_starts[s], q_rows).transpose(0, 1);
    const at::Tensor ks =
        k.narrow(0, layout.k_starts[s], k_rows).transpose(0, 1).repeat_interleave(repeats, 0);
    const at::Tensor vs =
        v.narrow(0, layout.k_starts[s], k_rows).transpose(0, 1).repeat_interleave(repeats, 0);
    at::Tensor seen = visible_keys(layout, s, q.device());
    if (layout.chosen.defined()) {
      seen =
          seen & listed(layout.chosen.narrow(0, layout.q_starts[s], q_rows).to(q.device()), k_rows);
    }
    const at::Tensor scores =
        reference::scores(qs, ks, layout, s)
            .masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
    // A sink is a key whose value is 0; without one a row that sees nothing still needs a
    // denominator.
    const at::Tensor sink =
        sinks.defined()
            ? sinks.to(scores.scalar_type()).view({-1, 1, 1}).expand({-1, q_rows, 1})
            : at::where(seen.any(1, /*keepdim=*/true),
                        at::full({}, -std::numeric_limits<double>::infinity(), scores.options()),
                        at::zeros({}, scores.options()))
                  .expand({q.size(1), q_rows, 1});
    const at::Tensor weights = at::cat({scores, sink}, 2).softmax(-1).narrow(2, 0, k_rows);
    parts.push_back(dropped(weights, layout, s).to(q.scalar_type()).matmul(vs).transpose(0, 1));
  }
  return at::cat(parts, 0);
}

}  // namespace reference

}  // namespace qianli::ops
