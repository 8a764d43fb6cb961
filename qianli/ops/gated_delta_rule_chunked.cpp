// The formulas are those of ops/cpu/delta_rule_forward.cpp and delta_rule_backward.cpp, for all
// heads and, but for the passing of the state, all chunks of a sequence at once.
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "qianli/ops/chunked.h"
#include "qianli/ops/gated_delta_rule.h"

namespace qianli::ops::chunked {
namespace {

// Rows of the given dimension divided by their length and scaled.
struct Normalised {
  at::Tensor rows, factor;
  double scale;

  Normalised(const at::Tensor& x, double given_scale) : scale(given_scale) {
    factor = at::rsqrt(x.pow(2).sum(-1, /*keepdim=*/true) + kDeltaRuleNormEps) * scale;
    rows = x * factor;
  }
  at::Tensor backward(const at::Tensor& grad) const {
    const at::Tensor along = (rows * grad).sum(-1, /*keepdim=*/true) / (scale * scale);
    return (grad - rows * along) * factor;
  }
};

// One sequence; the forward pass with everything that the backward pass wants.
class Sequence {
 public:
  Sequence(const DeltaRuleInput& input, int64_t index)
      : first_(input.starts[index]),
        chunks_(input.starts[index + 1] - first_),
        repeats_(input.v.size(1) / input.k.size(1)),
        q_(slice(input.q), std::pow(static_cast<double>(input.q.size(2)), -0.5)),
        k_(slice(input.k), 1.0),
        q(expanded(q_.rows)),
        k(expanded(k_.rows)),
        v(slice(input.v)),
        beta(slice(input.beta).unsqueeze(-1)),
        decay(slice(input.g)) {
    scores = q.matmul(k.mT());
    key_scores = k.matmul(k.mT());
    key_decay = key_scores * decay.between;
    const at::Tensor system = (key_decay * beta).tril(-1);
    mixing = scores * decay.between;
    const at::Tensor values = solve(system, v * beta);
    read_keys = solve(system, k * (beta * decay.from_start));
    end_keys = k * decay.to_end;
    at::Tensor state = input.initial_state.defined()
                           ? input.initial_state.select(0, index).to(v.scalar_type())
                           : at::zeros({v.size(0), k.size(-1), v.size(-1)}, v.options());
    std::vector<at::Tensor> all_written, all_states;
    for (int64_t n = 0; n < chunks_.count; ++n) {
      const auto at = [n](const at::Tensor& x) { return x.select(1, n); };
      all_states.push_back(state);
      all_written.push_back(at(values) - at(read_keys).matmul(state));
      state = state * at(decay.whole) + at(end_keys).mT().matmul(all_written.back());
    }
    final_state = state;
    if (chunks_.count == 0) return;
    written = stacked(all_written);
    states = stacked(all_states);
  }

  at::Tensor out() const {
    if (chunks_.count == 0) return v.new_empty({0, v.size(0), v.size(-1)});
    const at::Tensor read = (q * decay.from_start).matmul(states);
    return chunks_.join(read + mixing.matmul(written));
  }

  DeltaRuleGradients backward(const at::Tensor& all_grad_out, const at::Tensor& grad_final) const;

  at::Tensor final_state;

 private:
  at::Tensor slice(const at::Tensor& x) const {
    return chunks_.cut(x.narrow(0, first_, chunks_.rows).to(wide_type(x)));
  }
  // Key heads to value heads, and gradients back.
  at::Tensor expanded(const at::Tensor& x) const { return x.repeat_interleave(repeats_, 0); }
  at::Tensor reduced(const at::Tensor& x) const { return x.unflatten(0, {-1, repeats_}).sum(1); }
  // (I + system)^-1 x
  static at::Tensor solve(const at::Tensor& system, const at::Tensor& x) {
    return at::linalg_solve_triangular(system, x, /*upper=*/false, /*left=*/true,
                                       /*unitriangular=*/true);
  }

  int64_t first_;
  Chunks chunks_;
  int64_t repeats_;
  Normalised q_, k_;

  at::Tensor q, k, v;  // [Hv, n, C, dim]
  at::Tensor beta;     // [Hv, n, C, 1]
  Decay decay;
  at::Tensor scores, key_scores;  // q k^T, k k^T
  at::Tensor key_decay;           // tril(k k^T decay)
  at::Tensor mixing;              // tril(q k^T decay)
  at::Tensor read_keys;           // w: what the corrections take from the state before the chunk
  at::Tensor end_keys;            // k exp(s_last - s)
  at::Tensor written;             // V = beta c
  at::Tensor states;              // [Hv, n, dk, dv] before each chunk
};

DeltaRuleGradients Sequence::backward(const at::Tensor& all_grad_out,
                                      const at::Tensor& grad_final) const {
  const at::Tensor grad_out = slice(all_grad_out);
  const at::Tensor by_mixing = mixing.mT().matmul(grad_out);
  const at::Tensor by_queries = (q * decay.from_start).mT().matmul(grad_out);
  at::Tensor grad_state = grad_final;
  std::vector<at::Tensor> grads_written(chunks_.count), grads_behind(chunks_.count);
  for (int64_t n = chunks_.count - 1; n >= 0; --n) {
    const auto at = [n](const at::Tensor& x) { return x.select(1, n); };
    grads_behind[n] = grad_state;
    grads_written[n] = at(by_mixing) + at(end_keys).matmul(grad_state);
    grad_state =
        grad_state * at(decay.whole) + at(by_queries) - at(read_keys).mT().matmul(grads_written[n]);
  }
  const at::Tensor grad_behind = stacked(grads_behind);
  const at::Tensor z = at::linalg_solve_triangular((key_decay * beta).tril(-1).mT(),
                                                   stacked(grads_written), /*upper=*/true,
                                                   /*left=*/true, /*unitriangular=*/true);
  const at::Tensor grad_v = z * beta;
  const at::Tensor corrections =
      v - (k * decay.from_start).matmul(states) - key_decay.tril(-1).matmul(written);
  const at::Tensor m = grad_out.matmul(written.mT()) * decay.between;
  const at::Tensor n = -(grad_v.matmul(written.mT()) * decay.between).tril(-1);
  const at::Tensor q_by_state = grad_out.matmul(states.mT()) * decay.from_start;
  const at::Tensor k_by_state = grad_v.matmul(states.mT()) * decay.from_start;
  const at::Tensor grad_q = m.matmul(k) + q_by_state;
  const at::Tensor grad_k = m.mT().matmul(q) + (n + n.mT()).matmul(k) +
                            written.matmul(grad_behind.mT()) * decay.to_end - k_by_state;
  const at::Tensor grad_g = exponent_gradients(
      {.crossing = m * scores + n * key_scores,
       .from_start = (q * q_by_state - k * k_by_state).sum(-1),
       .to_end = (written * end_keys.matmul(grad_behind)).sum(-1),
       .through = (grad_behind * states).sum({-2, -1}) * decay.whole.squeeze(-1).squeeze(-1)});
  return {.q = chunks_.join(q_.backward(reduced(grad_q))),
          .k = chunks_.join(k_.backward(reduced(grad_k))),
          .v = chunks_.join(grad_v),
          .g = chunks_.join(grad_g),
          .beta = chunks_.join((z * corrections).sum(-1)),
          .initial_state = grad_state};
}

}  // namespace

DeltaRuleOutput gated_delta_rule(const DeltaRuleInput& input) {
  std::vector<at::Tensor> outs, finals;
  for (size_t s = 0; s + 1 < input.starts.size(); ++s) {
    const Sequence sequence(input, static_cast<int64_t>(s));
    outs.push_back(sequence.out());
    finals.push_back(sequence.final_state);
  }
  if (outs.empty()) return {at::zeros_like(input.v), input.initial_state};
  return {at::cat(outs, 0).to(input.v.scalar_type()),
          input.keep_state ? at::stack(finals, 0) : at::Tensor()};
}

DeltaRuleGradients gated_delta_rule_backward(const DeltaRuleInput& input,
                                             const at::Tensor& grad_out,
                                             const at::Tensor& grad_final_state) {
  DeltaRuleGradients grads{at::zeros_like(input.q),    at::zeros_like(input.k),
                           at::zeros_like(input.v),    at::zeros_like(input.g),
                           at::zeros_like(input.beta), at::Tensor()};
  std::vector<at::Tensor> initial;
  const int64_t heads = input.v.size(1);
  for (size_t s = 0; s + 1 < input.starts.size(); ++s) {
    const int64_t first = input.starts[s], rows = input.starts[s + 1] - first;
    const at::Tensor grad_final =
        grad_final_state.defined()
            ? grad_final_state.select(0, static_cast<int64_t>(s))
            : at::zeros({heads, input.k.size(2), input.v.size(2)}, input.g.options());
    initial.push_back(grad_final);
    if (rows == 0) continue;
    const Sequence sequence(input, static_cast<int64_t>(s));
    const auto found =
        sequence.backward(grad_out.defined() ? grad_out : at::zeros_like(input.v), grad_final);
    initial.back() = found.initial_state;
    grads.q.narrow(0, first, rows).copy_(found.q);
    grads.k.narrow(0, first, rows).copy_(found.k);
    grads.v.narrow(0, first, rows).copy_(found.v);
    grads.g.narrow(0, first, rows).copy_(found.g);
    grads.beta.narrow(0, first, rows).copy_(found.beta);
  }
  if (input.initial_state.defined()) grads.initial_state = at::stack(initial, 0);
  return grads;
}

}  // namespace qianli::ops::chunked
