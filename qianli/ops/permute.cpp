#include "qianli/ops/permute.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

CombineRows combine_call(const at::Tensor& x, const at::Tensor& rows, int64_t width) {
  return {.dtype = kernel_dtype(x),
          .tokens = rows.size(0),
          .slots = rows.size(1),
          .width = width,
          .rows = rows.data_ptr<int64_t>(),
          .weights = nullptr,
          .x = x.data_ptr(),
          .y = nullptr};
}

class GatherRowsFunction : public torch::autograd::Function<GatherRowsFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_given,
                            const at::Tensor& tokens, const at::Tensor& rows) {
    const at::Tensor x = x_given.contiguous();
    context->save_for_backward({rows});
    at::Tensor y = at::empty({tokens.size(0), x.size(1)}, x.options());
    kernels_for(Op::kPermute, x)
        ->gather_rows({.dtype = kernel_dtype(x),
                       .rows = y.size(0),
                       .width = y.size(1),
                       .tokens = tokens.data_ptr<int64_t>(),
                       .x = x.data_ptr(),
                       .y = y.data_ptr()},
                      stream_of(x));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor rows = context->get_saved_variables()[0];
    const at::Tensor grad_y = grads[0].contiguous();
    at::Tensor grad_x = at::empty({rows.size(0), grad_y.size(1)}, grad_y.options());
    CombineRows call = combine_call(grad_y, rows, grad_y.size(1));
    call.y = grad_x.data_ptr();
    kernels_for(Op::kPermute, grad_y)->combine_rows(call, stream_of(grad_y));
    return {grad_x, {}, {}};
  }
};

class CombineRowsFunction : public torch::autograd::Function<CombineRowsFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_given,
                            const at::Tensor& weights_given, const at::Tensor& rows, bool padded) {
    const at::Tensor x = x_given.contiguous(), weights = weights_given.contiguous();
    context->save_for_backward({x, weights, rows});
    context->saved_data["padded"] = padded;
    at::Tensor y = at::empty({rows.size(0), x.size(1)}, x.options());
    CombineRows call = combine_call(x, rows, x.size(1));
    call.weights = weights.data_ptr<float>();
    call.y = y.data_ptr();
    kernels_for(Op::kPermute, x)->combine_rows(call, stream_of(x));
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weights = saved[1], &rows = saved[2];
    const at::Tensor grad_y = grads[0].contiguous();
    // Rows of no choice get no gradient, and the kernel does not visit them.
    at::Tensor grad_x = at::empty_like(x);
    if (context->saved_data["padded"].toBool()) grad_x.zero_();
    at::Tensor grad_weights = at::empty_like(weights);
    CombineRows call = combine_call(x, rows, x.size(1));
    call.weights = weights.data_ptr<float>();
    kernels_for(Op::kPermute, x)
        ->combine_rows_backward({.forward = call,
                                 .grad_y = grad_y.data_ptr(),
                                 .grad_x = grad_x.data_ptr(),
                                 .grad_weights = grad_weights.data_ptr<float>()},
                                stream_of(x));
    return {grad_x, grad_weights, {}, {}};
  }
};

bool chosen(int64_t expert, int64_t num_experts) { return expert >= 0 && expert < num_experts; }

// Where each expert's rows begin, and behind them the number of rows.
std::vector<int64_t> starts_of(const std::vector<int64_t>& counts) {
  std::vector<int64_t> starts(counts.size() + 1, 0);
  std::partial_sum(counts.begin(), counts.end(), starts.begin() + 1);
  return starts;
}

}  // namespace

RowPlan plan_rows(const at::Tensor& experts_given, int64_t num_experts, int64_t rows_per_expert) {
  if (!experts_given.is_cpu()) {
    return reference::plan_rows(experts_given, num_experts, rows_per_expert);
  }
  const at::Tensor experts = experts_given.contiguous();
  const int64_t slots = experts.size(1), choices = experts.numel();
  const int64_t* expert = experts.data_ptr<int64_t>();
  RowPlan plan{.counts = std::vector<int64_t>(num_experts, 0)};
  for (int64_t c = 0; c < choices; ++c) {
    if (chosen(expert[c], num_experts)) ++plan.counts[expert[c]];
  }
  const int64_t taken = std::accumulate(plan.counts.begin(), plan.counts.end(), int64_t{0});
  if (rows_per_expert > 0) plan.counts.assign(num_experts, rows_per_expert);
  std::vector<int64_t> next = starts_of(plan.counts);
  plan.padded = next.back() > taken;
  plan.tokens = plan.padded ? at::zeros({next.back()}, experts.options())
                            : at::empty({next.back()}, experts.options());
  plan.rows = at::empty_like(experts);
  int64_t *tokens = plan.tokens.data_ptr<int64_t>(), *rows = plan.rows.data_ptr<int64_t>();
  for (int64_t c = 0; c < choices; ++c) {
    rows[c] = chosen(expert[c], num_experts) ? next[expert[c]]++ : -1;
    if (rows[c] >= 0) tokens[rows[c]] = c / slots;
  }
  return plan;
}

at::Tensor gather_rows(const at::Tensor& x, const RowPlan& plan) {
  if (!kernels_for(Op::kPermute, x)) return reference::gather_rows(x, plan.tokens);
  return GatherRowsFunction::apply(x, plan.tokens, plan.rows);
}

at::Tensor combine_rows(const at::Tensor& rows, const at::Tensor& weights, const RowPlan& plan) {
  if (!kernels_for(Op::kPermute, rows)) return reference::combine_rows(rows, weights, plan.rows);
  return CombineRowsFunction::apply(rows, weights, plan.rows, plan.padded);
}

namespace reference {

RowPlan plan_rows(const at::Tensor& experts, int64_t num_experts, int64_t rows_per_expert) {
  const at::Tensor flat = experts.flatten();
  const at::Tensor key = at::where(flat.ge(0).logical_and(flat.lt(num_experts)), flat, num_experts);
  const at::Tensor order =
      std::get<1>(at::sort(key, /*stable=*/true, /*dim=*/0, /*descending=*/false));
  const at::Tensor found = at::bincount(key, {}, num_experts + 1).narrow(0, 0, num_experts).cpu();
  const int64_t* count = found.data_ptr<int64_t>();
  RowPlan plan{.counts = std::vector<int64_t>(count, count + num_experts)};
  const std::vector<int64_t> from = starts_of(plan.counts);
  if (rows_per_expert > 0) plan.counts.assign(num_experts, rows_per_expert);
  const std::vector<int64_t> to = starts_of(plan.counts);
  plan.padded = to.back() > from.back();
  plan.tokens = at::zeros({to.back()}, flat.options());
  at::Tensor rows = at::full({flat.size(0)}, -1, flat.options());
  const at::Tensor places = at::arange(to.back(), flat.options());
  for (int64_t e = 0; rows_per_expert > 0 && e < num_experts; ++e) {
    const at::Tensor choices = order.narrow(0, from[e], from[e + 1] - from[e]);
    const at::Tensor place = places.narrow(0, to[e], choices.size(0));
    rows.index_copy_(0, choices, place);
    plan.tokens.index_copy_(0, place, choices.floor_divide(experts.size(1)));
  }
  if (rows_per_expert <= 0) {
    const at::Tensor choices = order.narrow(0, 0, from.back());
    rows.index_copy_(0, choices, places);
    plan.tokens.copy_(choices.floor_divide(experts.size(1)));
  }
  plan.rows = rows.view(experts.sizes());
  return plan;
}

at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& tokens) {
  return x.index_select(0, tokens);
}

at::Tensor combine_rows(const at::Tensor& rows, const at::Tensor& weights, const at::Tensor& plan) {
  if (rows.size(0) == 0) {  // no row to read for the choices that have none
    return at::zeros({plan.size(0), rows.size(1)}, rows.options()) + rows.sum() +
           (weights.sum() * 0.0).to(rows.scalar_type());
  }
  const at::Tensor counted = plan.ge(0).to(weights.scalar_type());
  const at::Tensor taken = rows.index_select(0, plan.clamp_min(0).flatten())
                               .view({plan.size(0), plan.size(1), rows.size(1)});
  const at::Tensor weighted = taken.to(weights.scalar_type()) * (weights * counted).unsqueeze(2);
  return weighted.sum(1).to(rows.scalar_type());
}

}  // namespace reference

}  // namespace qianli::ops
