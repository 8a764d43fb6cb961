// The formulas are those of ops/cpu/state_space_forward.cpp and state_space_backward.cpp, for all
// heads and, but for the passing of the state, all chunks of a sequence at once.
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "qianli/ops/chunked.h"
#include "qianli/ops/state_space.h"

namespace qianli::ops::chunked {
namespace {

// One sequence; the forward pass with everything that the backward pass wants.
class Sequence {
 public:
  Sequence(const StateSpaceInput& input, const at::Tensor& a, const at::Tensor& given_skip,
           int64_t index)
      : first_(input.starts[index]),
        chunks_(input.starts[index + 1] - first_),
        repeats_(input.x.size(1) / input.b.size(1)),
        x(slice(input.x)),
        b(expanded(slice(input.b))),
        c(expanded(slice(input.c))),
        dt(slice(input.dt).unsqueeze(-1)),
        skip(given_skip.view({-1, 1, 1, 1})),
        decay((dt * a.view({-1, 1, 1, 1})).squeeze(-1)) {
    scores = c.matmul(b.mT());
    written = x * dt;
    const at::Tensor added = (b * decay.to_end).mT().matmul(written);
    at::Tensor state = input.initial_state.defined()
                           ? input.initial_state.select(0, index).to(x.scalar_type())
                           : at::zeros({x.size(0), b.size(-1), x.size(-1)}, x.options());
    std::vector<at::Tensor> all_states;
    for (int64_t n = 0; n < chunks_.count; ++n) {
      all_states.push_back(state);
      state = state * decay.whole.select(1, n) + added.select(1, n);
    }
    final_state = state;
    if (chunks_.count > 0) states = stacked(all_states);
  }

  at::Tensor out() const {
    if (chunks_.count == 0) return x.new_empty({0, x.size(0), x.size(-1)});
    const at::Tensor read = (c * decay.from_start).matmul(states);
    return chunks_.join(read + (scores * decay.between).matmul(written) + x * skip);
  }

  StateSpaceGradients backward(const at::Tensor& all_grad_out, const at::Tensor& grad_final) const;

  at::Tensor final_state;

 private:
  at::Tensor slice(const at::Tensor& given) const {
    return chunks_.cut(given.narrow(0, first_, chunks_.rows).to(wide_type(given)));
  }
  // Groups to heads, and gradients back.
  at::Tensor expanded(const at::Tensor& of_groups) const {
    return of_groups.repeat_interleave(repeats_, 0);
  }
  at::Tensor reduced(const at::Tensor& of_heads) const {
    return of_heads.unflatten(0, {-1, repeats_}).sum(1);
  }

  int64_t first_;
  Chunks chunks_;
  int64_t repeats_;

  at::Tensor x;     // [n, chunks, C, hd]
  at::Tensor b, c;  // [n, chunks, C, N]
  at::Tensor dt;    // [n, chunks, C, 1]
  at::Tensor skip;  // [n, 1, 1, 1]
  Decay decay;
  at::Tensor scores;   // c b^T
  at::Tensor written;  // V = dt x
  at::Tensor states;   // [n, chunks, N, hd] before each chunk
};

StateSpaceGradients Sequence::backward(const at::Tensor& all_grad_out,
                                       const at::Tensor& grad_final) const {
  const at::Tensor grad_out = slice(all_grad_out);
  const at::Tensor by_reading = (c * decay.from_start).mT().matmul(grad_out);
  at::Tensor grad_state = grad_final;
  std::vector<at::Tensor> grads_behind(chunks_.count);
  for (int64_t n = chunks_.count - 1; n >= 0; --n) {
    grads_behind[n] = grad_state;
    grad_state = grad_state * decay.whole.select(1, n) + by_reading.select(1, n);
  }
  const at::Tensor grad_behind = stacked(grads_behind);
  const at::Tensor by_end = b.matmul(grad_behind) * decay.to_end;
  const at::Tensor grad_written = (scores * decay.between).mT().matmul(grad_out) + by_end;
  const at::Tensor m = grad_out.matmul(written.mT()) * decay.between;
  const at::Tensor by_state = grad_out.matmul(states.mT()) * decay.from_start;
  const at::Tensor grad_c = m.matmul(b) + by_state;
  const at::Tensor grad_b = m.mT().matmul(c) + written.matmul(grad_behind.mT()) * decay.to_end;
  const at::Tensor grad_decay = exponent_gradients(
      {.crossing = m * scores,
       .from_start = (c * by_state).sum(-1),
       .to_end = (written * by_end).sum(-1),
       .through = (grad_behind * states).sum({-2, -1}) * decay.whole.squeeze(-1).squeeze(-1)});
  return {.x = chunks_.join(grad_written * dt + grad_out * skip),
          .b = chunks_.join(reduced(grad_b)),
          .c = chunks_.join(reduced(grad_c)),
          .dt = chunks_.join((grad_written * x).sum(-1)),
          .decay = chunks_.join(grad_decay),
          .skip = chunks_.join((grad_out * x).sum(-1)),
          .initial_state = grad_state};
}

}  // namespace

StateSpaceOutput state_space(const StateSpaceInput& input, const at::Tensor& a,
                             const at::Tensor& skip) {
  std::vector<at::Tensor> outs, finals;
  for (size_t s = 0; s + 1 < input.starts.size(); ++s) {
    const Sequence sequence(input, a, skip, static_cast<int64_t>(s));
    outs.push_back(sequence.out());
    finals.push_back(sequence.final_state);
  }
  if (outs.empty()) return {at::zeros_like(input.x), input.initial_state};
  return {at::cat(outs, 0).to(input.x.scalar_type()),
          input.keep_state ? at::stack(finals, 0) : at::Tensor()};
}

StateSpaceGradients state_space_backward(const StateSpaceInput& input, const at::Tensor& a,
                                         const at::Tensor& skip, const at::Tensor& grad_out,
                                         const at::Tensor& grad_final_state) {
  StateSpaceGradients grads{.x = at::zeros_like(input.x),
                            .b = at::zeros_like(input.b),
                            .c = at::zeros_like(input.c),
                            .dt = at::zeros_like(input.dt),
                            .decay = at::zeros_like(input.dt),
                            .skip = at::zeros_like(input.dt)};
  std::vector<at::Tensor> initial;
  for (size_t s = 0; s + 1 < input.starts.size(); ++s) {
    const int64_t first = input.starts[s], rows = input.starts[s + 1] - first;
    const at::Tensor grad_final =
        grad_final_state.defined()
            ? grad_final_state.select(0, static_cast<int64_t>(s))
            : at::zeros({input.x.size(1), input.b.size(2), input.x.size(2)}, input.dt.options());
    initial.push_back(grad_final);
    if (rows == 0) continue;
    const Sequence sequence(input, a, skip, static_cast<int64_t>(s));
    const auto found =
        sequence.backward(grad_out.defined() ? grad_out : at::zeros_like(input.x), grad_final);
    initial.back() = found.initial_state;
    grads.x.narrow(0, first, rows).copy_(found.x);
    grads.b.narrow(0, first, rows).copy_(found.b);
    grads.c.narrow(0, first, rows).copy_(found.c);
    grads.dt.narrow(0, first, rows).copy_(found.dt);
    grads.decay.narrow(0, first, rows).copy_(found.decay);
    grads.skip.narrow(0, first, rows).copy_(found.skip);
  }
  if (input.initial_state.defined()) grads.initial_state = at::stack(initial, 0);
  return grads;
}

}  // namespace qianli::ops::chunked
