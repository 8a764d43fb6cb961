#include "qianli/ops/state_space.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What the parameters stand for, [n] in the accumulation type.
struct Rates {
  at::Tensor a, skip;
  Rates(const Parameter& a_log, const Parameter& given_skip, at::ScalarType wide)
      : a(-a_log.value().to(wide).exp()), skip(given_skip.value().to(wide)) {}
};

float* float_data(const at::Tensor& x) { return x.defined() ? x.data_ptr<float>() : nullptr; }

StateSpaceForward kernel_call(const StateSpaceInput& input, const Rates& rates,
                              const StateSpaceOutput& output) {
  return {.dtype = kernel_dtype(input.x),
          .sequences = static_cast<int64_t>(input.starts.size()) - 1,
          .starts = input.starts.data(),
          .heads = input.x.size(1),
          .groups = input.b.size(1),
          .head_dim = input.x.size(2),
          .state_size = input.b.size(2),
          .x = input.x.data_ptr(),
          .b = input.b.data_ptr(),
          .c = input.c.data_ptr(),
          .x_stride = input.x.stride(0),
          .b_stride = input.b.stride(0),
          .c_stride = input.c.stride(0),
          .dt = input.dt.data_ptr<float>(),
          .a = rates.a.data_ptr<float>(),
          .skip = rates.skip.data_ptr<float>(),
          .initial_state = float_data(input.initial_state),
          .final_state = float_data(output.final_state),
          .out = output.out.defined() ? output.out.data_ptr() : nullptr};
}

StateSpaceOutput native_forward(const StateSpaceInput& input, const Rates& rates) {
  StateSpaceOutput output;
  output.out = at::empty(input.x.sizes(), input.x.options());
  if (input.keep_state) {
    output.final_state = at::empty({static_cast<int64_t>(input.starts.size()) - 1, input.x.size(1),
                                    input.b.size(2), input.x.size(2)},
                                   input.dt.options());
  }
  kernels_for(Op::kStateSpace, input.x)
      ->state_space_forward(kernel_call(input, rates, output), stream_of(input.x));
  return output;
}

chunked::StateSpaceGradients native_backward(const StateSpaceInput& input, const Rates& rates,
                                             const at::Tensor& grad_out_given,
                                             const at::Tensor& grad_final_state) {
  const at::Tensor grad_out = grad_out_given.defined()
                                  ? grad_out_given.contiguous()
                                  : at::zeros(input.x.sizes(), input.x.options());
  const at::Tensor grad_final =
      grad_final_state.defined() ? grad_final_state.contiguous() : at::Tensor();
  chunked::StateSpaceGradients grads{.x = at::empty(input.x.sizes(), input.x.options()),
                                     .b = at::empty(input.b.sizes(), input.b.options()),
                                     .c = at::empty(input.c.sizes(), input.c.options()),
                                     .dt = at::empty_like(input.dt),
                                     .decay = at::empty_like(input.dt),
                                     .skip = at::empty_like(input.dt)};
  if (input.initial_state.defined()) grads.initial_state = at::empty_like(input.initial_state);
  kernels_for(Op::kStateSpace, input.x)
      ->state_space_backward({.forward = kernel_call(input, rates, {}),
                              .grad_out = grad_out.data_ptr(),
                              .grad_final_state = float_data(grad_final),
                              .grad_x = grads.x.data_ptr(),
                              .grad_b = grads.b.data_ptr(),
                              .grad_c = grads.c.data_ptr(),
                              .grad_dt = grads.dt.data_ptr<float>(),
                              .grad_decay = grads.decay.data_ptr<float>(),
                              .grad_skip = grads.skip.data_ptr<float>(),
                              .grad_initial_state = float_data(grads.initial_state)},
                             stream_of(input.x));
  return grads;
}

struct Call {
  Parameter* a_log;
  Parameter* skip;
  bool keep_state;
};

// Returns {out} or {out, final state}.
class StateSpaceFunction : public torch::autograd::Function<StateSpaceFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& dt,
                               const at::Tensor& b, const at::Tensor& c,
                               const std::optional<at::Tensor>& initial_state, const at::Tensor&,
                               const c10::intrusive_ptr<SegmentsHolder>& segments,
                               const Call& call) {
    const StateSpaceInput input{
        .x = with_whole_rows(x),
        .dt = dt.contiguous(),
        .b = with_whole_rows(b),
        .c = with_whole_rows(c),
        .starts = segments->starts,
        .initial_state = initial_state ? initial_state->contiguous() : at::Tensor(),
        .keep_state = call.keep_state};
    const Rates rates(*call.a_log, *call.skip, dt.scalar_type());
    const StateSpaceOutput output = kernels_for(Op::kStateSpace, x)
                                        ? native_forward(input, rates)
                                        : chunked::state_space(input, rates.a, rates.skip);
    context->save_for_backward({input.x, input.dt, input.b, input.c, input.initial_state});
    context->saved_data["segments"] = c10::IValue::make_capsule(segments);
    context->saved_data["a_log"] = reinterpret_cast<int64_t>(call.a_log);
    context->saved_data["skip"] = reinterpret_cast<int64_t>(call.skip);
    context->set_materialize_grads(false);
    if (call.keep_state) return {output.out, output.final_state};
    return {output.out};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto segments = c10::static_intrusive_pointer_cast<SegmentsHolder>(
        context->saved_data["segments"].toCapsule());
    auto* a_log = reinterpret_cast<Parameter*>(context->saved_data["a_log"].toInt());
    auto* skip = reinterpret_cast<Parameter*>(context->saved_data["skip"].toInt());
    const StateSpaceInput input{.x = saved[0],
                                .dt = saved[1],
                                .b = saved[2],
                                .c = saved[3],
                                .starts = segments->starts,
                                .initial_state = saved[4]};
    const Rates rates(*a_log, *skip, input.dt.scalar_type());
    const at::Tensor grad_final = grads.size() > 1 ? grads[1] : at::Tensor();
    const auto found =
        kernels_for(Op::kStateSpace, input.x)
            ? native_backward(input, rates, grads[0], grad_final)
            : chunked::state_space_backward(input, rates.a, rates.skip, grads[0], grad_final);
    if (a_log->trainable()) {
      a_log->grad_to_add().add_((found.decay * input.dt).sum(0) * rates.a);
    }
    if (skip->trainable()) skip->grad_to_add().add_(found.skip.sum(0));
    return {
        found.x, found.dt + found.decay * rates.a, found.b, found.c, found.initial_state, {}, {},
        {}};
  }
};

void check(const StateSpaceInput& input, const Parameter& a_log, const Parameter& skip) {
  TORCH_CHECK(input.x.dim() == 3 && input.b.dim() == 3 && input.b.sizes() == input.c.sizes() &&
                  input.b.size(0) == input.x.size(0) && input.b.size(1) > 0 &&
                  input.x.size(1) % input.b.size(1) == 0,
              "[state_space] expected x [T, n, hd] and b and c [T, G, N] with n a multiple of G, "
              "got ",
              input.x.sizes(), ", ", input.b.sizes(), " and ", input.c.sizes());
  const int64_t heads = input.x.size(1);
  const at::ScalarType wide = wide_type(input.x);
  TORCH_CHECK(input.dt.dim() == 2 && input.dt.size(0) == input.x.size(0) &&
                  input.dt.size(1) == heads && input.dt.scalar_type() == wide &&
                  a_log.value().numel() == heads && skip.value().numel() == heads,
              "[state_space] expected dt [T, n] in ", c10::toString(wide),
              " and a_log and skip [n], got ", input.dt.sizes());
  check_segments("state_space", input.starts, input.x.size(0));
  if (!input.initial_state.defined()) return;
  const auto state = {static_cast<int64_t>(input.starts.size()) - 1, heads, input.b.size(2),
                      input.x.size(2)};
  TORCH_CHECK(input.initial_state.sizes() == at::IntArrayRef(state) &&
                  input.initial_state.scalar_type() == wide,
              "[state_space] expected an initial state [segments, n, N, hd] in ",
              c10::toString(wide), ", got ", input.initial_state.sizes());
}

StateSpaceOutput by_reference(const StateSpaceInput& input, Parameter& a_log, Parameter& skip) {
  Tensors inputs{input.x, input.dt, input.b, input.c};
  if (input.initial_state.defined()) inputs.push_back(input.initial_state);
  const auto formula = [starts = input.starts, keep = input.keep_state](const Tensors& given,
                                                                        const Tensors& weights) {
    const StateSpaceOutput output =
        reference::state_space({.x = given[0],
                                .dt = given[1],
                                .b = given[2],
                                .c = given[3],
                                .starts = starts,
                                .initial_state = given.size() > 4 ? given[4] : at::Tensor(),
                                .keep_state = keep},
                               weights[0], weights[1]);
    return keep ? Tensors{output.out, output.final_state} : Tensors{output.out};
  };
  const Tensors results = apply_reference(formula, inputs, {&a_log, &skip});
  return {results[0], input.keep_state ? results[1] : at::Tensor()};
}

}  // namespace

StateSpaceOutput state_space(const StateSpaceInput& input, Parameter& a_log, Parameter& skip) {
  check(input, a_log, skip);
  if (!kernels_for(Op::kStateSpace, input.x) && !use_torch(Op::kStateSpace, input.x)) {
    return by_reference(input, a_log, skip);
  }
  const std::optional<at::Tensor> initial =
      input.initial_state.defined() ? std::optional(input.initial_state) : std::nullopt;
  const bool trainable = a_log.trainable() || skip.trainable();
  const variable_list results = StateSpaceFunction::apply(
      input.x, input.dt, input.b, input.c, initial,
      trainable ? gradient_anchor() : gradient_anchor().detach(),
      c10::make_intrusive<SegmentsHolder>(input.starts), Call{&a_log, &skip, input.keep_state});
  return {results[0], input.keep_state ? results[1] : at::Tensor()};
}

namespace reference {

StateSpaceOutput state_space(const StateSpaceInput& input, const at::Tensor& a_log,
                             const at::Tensor& skip) {
  const at::ScalarType wide = wide_type(input.x);
  const int64_t repeats = input.x.size(1) / input.b.size(1);
  const at::Tensor x = input.x.to(wide), a = -a_log.to(wide).exp();
  const at::Tensor b = input.b.to(wide).repeat_interleave(repeats, 1);
  const at::Tensor c = input.c.to(wide).repeat_interleave(repeats, 1);
  std::vector<at::Tensor> outs, finals;
  for (size_t s = 0; s + 1 < input.starts.size(); ++s) {
    at::Tensor state = input.initial_state.defined()
                           ? input.initial_state.select(0, static_cast<int64_t>(s))
                           : at::zeros({x.size(1), b.size(2), x.size(2)}, x.options());
    for (int64_t t = input.starts[s]; t < input.starts[s + 1]; ++t) {
      const at::Tensor step = input.dt[t];
      state = state * (step * a).exp().view({-1, 1, 1}) +
              b[t].unsqueeze(-1) * (x[t] * step.unsqueeze(-1)).unsqueeze(1);
      outs.push_back((state * c[t].unsqueeze(-1)).sum(1) + x[t] * skip.to(wide).unsqueeze(-1));
    }
    finals.push_back(state);
  }
  return {outs.empty() ? at::zeros_like(input.x) : at::stack(outs, 0).to(input.x.scalar_type()),
          input.keep_state ? at::stack(finals, 0) : at::Tensor()};
}

}  // namespace reference

}  // namespace qianli::ops
