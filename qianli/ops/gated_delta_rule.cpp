#include "qianli/ops/gated_delta_rule.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

double query_scale(const at::Tensor& q) { return std::pow(static_cast<double>(q.size(2)), -0.5); }

const float* float_data(const at::Tensor& x) { return x.defined() ? x.data_ptr<float>() : nullptr; }
float* mutable_float_data(const at::Tensor& x) {
  return x.defined() ? x.data_ptr<float>() : nullptr;
}

DeltaRuleForward kernel_call(const DeltaRuleInput& input, const DeltaRuleOutput& output,
                             const at::Tensor& correction) {
  return {.dtype = kernel_dtype(input.q),
          .sequences = static_cast<int64_t>(input.starts.size()) - 1,
          .starts = input.starts.data(),
          .key_heads = input.k.size(1),
          .value_heads = input.v.size(1),
          .key_dim = input.k.size(2),
          .value_dim = input.v.size(2),
          .scale = query_scale(input.q),
          .norm_eps = kDeltaRuleNormEps,
          .q = input.q.data_ptr(),
          .k = input.k.data_ptr(),
          .v = input.v.data_ptr(),
          .q_stride = input.q.stride(0),
          .k_stride = input.k.stride(0),
          .v_stride = input.v.stride(0),
          .g = input.g.data_ptr<float>(),
          .beta = input.beta.data_ptr<float>(),
          .initial_state = float_data(input.initial_state),
          .final_state = mutable_float_data(output.final_state),
          .out = output.out.defined() ? output.out.data_ptr() : nullptr,
          .correction = mutable_float_data(correction)};
}

// `correction` is filled when it is defined.
DeltaRuleOutput native_forward(const DeltaRuleInput& input, const at::Tensor& correction) {
  DeltaRuleOutput output;
  output.out = at::empty(input.v.sizes(), input.v.options());
  if (input.keep_state) {
    output.final_state = at::empty({static_cast<int64_t>(input.starts.size()) - 1, input.v.size(1),
                                    input.k.size(2), input.v.size(2)},
                                   input.g.options());
  }
  kernels_for(Op::kGatedDeltaRule, input.q)
      ->delta_rule_forward(kernel_call(input, output, correction), stream_of(input.q));
  return output;
}

chunked::DeltaRuleGradients native_backward(const DeltaRuleInput& input,
                                            const at::Tensor& correction,
                                            const at::Tensor& grad_out_given,
                                            const at::Tensor& grad_final_state) {
  const at::Tensor grad_out = grad_out_given.defined()
                                  ? grad_out_given.contiguous()
                                  : at::zeros(input.v.sizes(), input.v.options());
  const at::Tensor grad_final =
      grad_final_state.defined() ? grad_final_state.contiguous() : at::Tensor();
  chunked::DeltaRuleGradients grads{at::empty(input.q.sizes(), input.q.options()),
                                    at::empty(input.k.sizes(), input.k.options()),
                                    at::empty(input.v.sizes(), input.v.options()),
                                    at::empty_like(input.g),
                                    at::empty_like(input.beta),
                                    at::Tensor()};
  if (input.initial_state.defined()) grads.initial_state = at::empty_like(input.initial_state);
  kernels_for(Op::kGatedDeltaRule, input.q)
      ->delta_rule_backward({.forward = kernel_call(input, {}, correction),
                             .grad_out = grad_out.data_ptr(),
                             .grad_final_state = float_data(grad_final),
                             .grad_q = grads.q.data_ptr(),
                             .grad_k = grads.k.data_ptr(),
                             .grad_v = grads.v.data_ptr(),
                             .grad_g = grads.g.data_ptr<float>(),
                             .grad_beta = grads.beta.data_ptr<float>(),
                             .grad_initial_state = mutable_float_data(grads.initial_state)},
                            stream_of(input.q));
  return grads;
}

struct Options {
  bool keep_state, record;
};

// Returns {out} or {out, final state}.
class DeltaRuleFunction : public torch::autograd::Function<DeltaRuleFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const at::Tensor& g, const at::Tensor& beta,
                               const std::optional<at::Tensor>& initial_state,
                               const c10::intrusive_ptr<SegmentsHolder>& segments,
                               const Options& options) {
    DeltaRuleInput input{
        .q = with_whole_rows(q),
        .k = with_whole_rows(k),
        .v = with_whole_rows(v),
        .g = g.contiguous(),
        .beta = beta.contiguous(),
        .starts = segments->starts,
        .initial_state = initial_state ? initial_state->contiguous() : at::Tensor(),
        .keep_state = options.keep_state};
    const bool native = kernels_for(Op::kGatedDeltaRule, q);
    const at::Tensor correction =
        native && options.record ? at::empty(v.sizes(), input.g.options()) : at::Tensor();
    const DeltaRuleOutput output =
        native ? native_forward(input, correction) : chunked::gated_delta_rule(input);
    if (options.record) {
      context->save_for_backward(
          {input.q, input.k, input.v, input.g, input.beta, input.initial_state, correction});
      context->saved_data["segments"] = c10::IValue::make_capsule(segments);
      context->set_materialize_grads(false);
    }
    if (options.keep_state) return {output.out, output.final_state};
    return {output.out};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto segments = c10::static_intrusive_pointer_cast<SegmentsHolder>(
        context->saved_data["segments"].toCapsule());
    const DeltaRuleInput input{.q = saved[0],
                               .k = saved[1],
                               .v = saved[2],
                               .g = saved[3],
                               .beta = saved[4],
                               .starts = segments->starts,
                               .initial_state = saved[5]};
    const at::Tensor grad_final_state = grads.size() > 1 ? grads[1] : at::Tensor();
    const auto found = saved[6].defined()
                           ? native_backward(input, saved[6], grads[0], grad_final_state)
                           : chunked::gated_delta_rule_backward(input, grads[0], grad_final_state);
    return {found.q, found.k, found.v, found.g, found.beta, found.initial_state, {}, {}};
  }
};

void check(const DeltaRuleInput& input) {
  TORCH_CHECK(input.q.dim() == 3 && input.q.sizes() == input.k.sizes() && input.v.dim() == 3 &&
                  input.v.size(0) == input.k.size(0) && input.k.size(1) > 0 &&
                  input.v.size(1) % input.k.size(1) == 0,
              "[gated_delta_rule] expected q and k [T, Hk, dk] and v [T, Hv, dv] with Hv a "
              "multiple of Hk, got ",
              input.q.sizes(), ", ", input.k.sizes(), " and ", input.v.sizes());
  const auto gate = {input.v.size(0), input.v.size(1)};
  const at::ScalarType wide = wide_type(input.v);
  TORCH_CHECK(input.g.sizes() == at::IntArrayRef(gate) &&
                  input.beta.sizes() == at::IntArrayRef(gate) && input.g.scalar_type() == wide &&
                  input.beta.scalar_type() == wide,
              "[gated_delta_rule] expected g and beta [T, Hv] in ", c10::toString(wide));
  check_segments("gated_delta_rule", input.starts, input.v.size(0));
  if (!input.initial_state.defined()) return;
  const auto state = {static_cast<int64_t>(input.starts.size()) - 1, input.v.size(1),
                      input.k.size(2), input.v.size(2)};
  TORCH_CHECK(input.initial_state.sizes() == at::IntArrayRef(state) &&
                  input.initial_state.scalar_type() == wide,
              "[gated_delta_rule] expected an initial state [segments, Hv, dk, dv] in ",
              c10::toString(wide), ", got ", input.initial_state.sizes());
}

bool is_recorded(const DeltaRuleInput& input) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor* x :
       {&input.q, &input.k, &input.v, &input.g, &input.beta, &input.initial_state}) {
    if (x->defined() && x->requires_grad()) return true;
  }
  return false;
}

DeltaRuleOutput by_reference(const DeltaRuleInput& input) {
  Tensors inputs{input.q, input.k, input.v, input.g, input.beta};
  if (input.initial_state.defined()) inputs.push_back(input.initial_state);
  const auto formula = [starts = input.starts, keep = input.keep_state](const Tensors& x,
                                                                        const Tensors&) {
    const DeltaRuleOutput output =
        reference::gated_delta_rule({.q = x[0],
                                     .k = x[1],
                                     .v = x[2],
                                     .g = x[3],
                                     .beta = x[4],
                                     .starts = starts,
                                     .initial_state = x.size() > 5 ? x[5] : at::Tensor(),
                                     .keep_state = keep});
    return keep ? Tensors{output.out, output.final_state} : Tensors{output.out};
  };
  const Tensors results = apply_reference(formula, inputs, {});
  return {results[0], input.keep_state ? results[1] : at::Tensor()};
}

}  // namespace

DeltaRuleOutput gated_delta_rule(const DeltaRuleInput& input) {
  check(input);
  if (!kernels_for(Op::kGatedDeltaRule, input.q) && !use_torch(Op::kGatedDeltaRule, input.q)) {
    return by_reference(input);
  }
  const std::optional<at::Tensor> initial =
      input.initial_state.defined() ? std::optional(input.initial_state) : std::nullopt;
  const variable_list results =
      DeltaRuleFunction::apply(input.q, input.k, input.v, input.g, input.beta, initial,
                               c10::make_intrusive<SegmentsHolder>(input.starts),
                               Options{input.keep_state, is_recorded(input)});
  return {results[0], input.keep_state ? results[1] : at::Tensor()};
}

namespace reference {

DeltaRuleOutput gated_delta_rule(const DeltaRuleInput& input) {
  const at::ScalarType wide = wide_type(input.v);
  const int64_t repeats = input.v.size(1) / input.k.size(1);
  const auto normed = [&](const at::Tensor& given) {
    const at::Tensor x = given.to(wide);
    const at::Tensor squares = x.pow(2).sum(-1, /*keepdim=*/true);
    return (x * at::rsqrt(squares + kDeltaRuleNormEps)).repeat_interleave(repeats, 1);
  };
  const at::Tensor q = normed(input.q) * query_scale(input.q), k = normed(input.k);
  const at::Tensor v = input.v.to(wide);
  std::vector<at::Tensor> outs, finals;
  for (size_t s = 0; s + 1 < input.starts.size(); ++s) {
    at::Tensor state = input.initial_state.defined()
                           ? input.initial_state.select(0, static_cast<int64_t>(s))
                           : at::zeros({v.size(1), k.size(2), v.size(2)}, v.options());
    for (int64_t t = input.starts[s]; t < input.starts[s + 1]; ++t) {
      const at::Tensor key = k[t].unsqueeze(-1);  // [Hv, dk, 1]
      state = state * input.g[t].exp().view({-1, 1, 1});
      const at::Tensor correction = v[t] - (state * key).sum(1);
      state = state + key * (correction * input.beta[t].unsqueeze(-1)).unsqueeze(1);
      outs.push_back((state * q[t].unsqueeze(-1)).sum(1));
    }
    finals.push_back(state);
  }
  return {outs.empty() ? at::zeros_like(input.v) : at::stack(outs, 0).to(input.v.scalar_type()),
          input.keep_state ? at::stack(finals, 0) : at::Tensor()};
}

}  // namespace reference

}  // namespace qianli::ops
