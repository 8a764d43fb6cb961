#include "qianli/ops/low_rank.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/ops/deferred_gradients.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/gemm.h"
#include "qianli/ops/linear.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// body(its columns of z, its rows of W, where its rows of B begin), for each module.
template <class Body>
void each_module(const std::vector<LowRank::Rows>& modules, int64_t rank, const Body& body) {
  int64_t column = 0, row = 0;
  for (const LowRank::Rows& rows : modules) {
    if (rows.count > 0) body(column, rows, row);
    column += rank;
    row += rows.count;
  }
}

// buffer = beta buffer + scale left^T right
void add_product(at::Tensor buffer, double beta, const at::Tensor& left, const at::Tensor& right,
                 double scale) {
  if (buffer.scalar_type() == right.scalar_type()) {
    at::addmm_out(buffer, buffer, left.t(), right, beta, scale);
  } else if (beta == 0.0) {
    buffer.copy_(at::mm(left.t(), right)).mul_(scale);
  } else {
    buffer.add_(at::mm(left.t(), right), scale);
  }
}

// The gradients of an expert's matrices, or of the only ones.
struct GradientBuffers {
  at::Tensor a, b;  // undefined: not trained
  double beta_a = 0, beta_b = 0;

  explicit GradientBuffers(const LowRank& adapter) {
    if (adapter.a->trainable()) {
      const auto [buffer, beta] = adapter.a->grad_to_accumulate();
      a = buffer, beta_a = beta;
    }
    if (adapter.b->trainable()) {
      const auto [buffer, beta] = adapter.b->grad_to_accumulate();
      b = buffer, beta_b = beta;
    }
  }

  GradientBuffers of_expert(int64_t e) const {
    GradientBuffers own = *this;
    if (own.a.defined()) own.a = own.a.select(0, e);
    if (own.b.defined()) own.b = own.b.select(0, e);
    return own;
  }

  void forget() const {
    if (a.defined() && beta_a == 0.0) at::Tensor(a).zero_();
    if (b.defined() && beta_b == 0.0) at::Tensor(b).zero_();
  }

  // Reads no values: those may be gone.
  void add(const LowRank& adapter, const at::Tensor& grad_y, const at::Tensor& x,
           const at::Tensor& z, const at::Tensor& grad_z) const {
    if (a.defined()) add_product(a, beta_a, grad_z, x, 1.0);
    if (!b.defined()) return;
    const int64_t rank = b.size(1);
    each_module(adapter.modules, rank, [&](int64_t column, const LowRank::Rows& rows, int64_t row) {
      add_product(b.narrow(0, row, rows.count), beta_b, grad_y.narrow(1, rows.first, rows.count),
                  z.narrow(1, column, rank), adapter.scale);
    });
  }
};

// W + s B A
at::Tensor sum_of(const Parameter& weight, const LowRank& adapter) {
  const LowRankValues low_rank = values_of(adapter);
  const at::Tensor sum = weight.value().clone();
  const int64_t rank = low_rank.b.size(1);
  each_module(adapter.modules, rank, [&](int64_t column, const LowRank::Rows& rows, int64_t row) {
    sum.narrow(0, rows.first, rows.count)
        .addmm_(low_rank.b.narrow(0, row, rows.count), low_rank.a.narrow(0, column, rank), 1.0,
                adapter.scale);
  });
  return sum;
}

// [out]: what the columns of y are multiplied by; undefined: nothing.
at::Tensor factors_of(const Parameter& weight, const LowRank& adapter) {
  if (!adapter.magnitude) return {};
  const at::Tensor m = adapter.magnitude->value();
  const at::Tensor own = m / row_lengths(weight, adapter).to(m.scalar_type());
  const at::Tensor factors = at::ones({weight.sizes()[0]}, m.options());
  each_module(adapter.modules, 0, [&](int64_t, const LowRank::Rows& rows, int64_t row) {
    factors.narrow(0, rows.first, rows.count).copy_(own.narrow(0, row, rows.count));
  });
  return factors;
}

// y without its bias is the product times m / |W + s B A|.
void accumulate_magnitude(const LowRank& adapter, const at::Tensor& grad_y, const at::Tensor& y,
                          const Parameter* bias) {
  if (!adapter.magnitude || !adapter.magnitude->trainable()) return;
  at::Tensor& buffer = adapter.magnitude->grad_to_add();
  const at::Tensor plain = bias ? y - bias->value() : y;
  const at::Tensor sums = (grad_y * plain).sum(0, /*keepdim=*/false, buffer.scalar_type());
  const at::Tensor m = adapter.magnitude->value().to(buffer.scalar_type());
  each_module(adapter.modules, 0, [&](int64_t, const LowRank::Rows& rows, int64_t row) {
    buffer.narrow(0, row, rows.count)
        .add_(sums.narrow(0, rows.first, rows.count) / m.narrow(0, row, rows.count));
  });
}

// Whether W + s B A, once made, costs less than what it saves beside a product of so many rows and
// columns (MindSpeed's CCLoRA). In bfloat16 the sum would lose what adapters have learnt.
bool pays_to_combine(const at::Tensor& x, int64_t columns) {
  return x.scalar_type() != at::kBFloat16 && x.size(0) >= columns;
}

class AdaptedLinearFunction : public torch::autograd::Function<AdaptedLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor&,
                            Parameter* weight, Parameter* bias, const LowRank* adapter) {
    context->saved_data["x_needs_grad"] = x.requires_grad();
    context->saved_data["weight"] = reinterpret_cast<int64_t>(weight);
    context->saved_data["bias"] = reinterpret_cast<int64_t>(bias);
    context->saved_data["adapter"] = reinterpret_cast<int64_t>(adapter);
    remember_deferred(context);
    const LowRankValues low_rank = values_of(*adapter);
    const at::Tensor factors = factors_of(*weight, *adapter);
    const bool adds_later = factors.defined() && bias;
    const at::Tensor added = bias && !adds_later ? bias->value() : at::Tensor();
    at::Tensor y, z;
    if (pays_to_combine(x, x.size(1))) {
      y = gemm_nt(x, sum_of(*weight, *adapter), added);
    } else {
      y = gemm_nt(x, weight->value(), added);
      z = low_rank.down(x);
      low_rank.add_up(z, y);
    }
    if (factors.defined()) y.mul_(factors);
    if (adds_later) y.add_(bias->value());
    context->save_for_backward({x, z, factors, factors.defined() ? y : at::Tensor()});
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto* weight = reinterpret_cast<Parameter*>(context->saved_data["weight"].toInt());
    auto* bias = reinterpret_cast<Parameter*>(context->saved_data["bias"].toInt());
    const auto* adapter = reinterpret_cast<LowRank*>(context->saved_data["adapter"].toInt());
    const variable_list saved = context->get_saved_variables();
    const LowRankValues low_rank = values_of(*adapter);
    if (bias && bias->trainable()) {
      at::Tensor& buffer = bias->grad_to_add();
      buffer.add_(grads[0].sum(0, /*keepdim=*/false, buffer.scalar_type()));
    }
    at::Tensor grad_y = grads[0];
    if (saved[2].defined()) {
      accumulate_magnitude(*adapter, grad_y, saved[3].detach(), bias);
      grad_y = grad_y * saved[2];
    }
    const at::Tensor grad_z = low_rank.up_gradient(grad_y);
    at::Tensor grad_x;
    if (context->saved_data["x_needs_grad"].toBool()) {
      const bool combined = pays_to_combine(grad_y, grad_y.size(1));
      grad_x = gemm_nt(grad_y, combined ? sum_of(*weight, *adapter).t() : weight->value().t());
      if (!combined) low_rank.add_input_gradient(grad_z, grad_x);
    }
    // Values of parameters may be gone when the gradients of weights are made.
    const at::Tensor x = saved[0].detach();
    const at::Tensor z = saved[1].defined() ? saved[1].detach() : low_rank.down(x);
    add_deferred(context, [adapter, weight, grad_y, grad_z, x, z] {
      accumulate_low_rank(*adapter, grad_y, x, z, grad_z);
      if (weight->trainable()) accumulate_weight_gradient(*weight, grad_y, x);
    });
    return {grad_x, {}, {}, {}, {}};
  }
};

LowRankValues of_expert(const LowRankValues& all, int64_t e) {
  return {all.a.select(0, e), all.b.select(0, e), all.scale, all.modules};
}

// body(expert, its rows), for those that have some.
template <class Body>
void each_expert(const std::vector<int64_t>& counts, const Body& body) {
  int64_t first = 0;
  for (size_t e = 0; e < counts.size(); ++e) {
    const auto rows = [first, count = counts[e]](const at::Tensor& all) {
      return all.narrow(0, first, count);
    };
    if (counts[e] > 0) body(static_cast<int64_t>(e), rows);
    first += counts[e];
  }
}

class GroupedLowRankFunction : public torch::autograd::Function<GroupedLowRankFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor&,
                            const std::vector<int64_t>& counts, int64_t out,
                            const LowRank* adapter) {
    context->saved_data["x_needs_grad"] = x.requires_grad();
    context->saved_data["counts"] = counts;
    context->saved_data["adapter"] = reinterpret_cast<int64_t>(adapter);
    remember_deferred(context);
    const LowRankValues all = values_of(*adapter);
    const at::Tensor z = at::empty({x.size(0), all.a.size(1)}, x.options());
    const at::Tensor y = at::zeros({x.size(0), out}, x.options());
    each_expert(counts, [&](int64_t e, const auto& rows) {
      const LowRankValues own = of_expert(all, e);
      rows(z).copy_(own.down(rows(x)));
      own.add_up(rows(z), rows(y));
    });
    context->save_for_backward({x, z});
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto* adapter = reinterpret_cast<LowRank*>(context->saved_data["adapter"].toInt());
    const std::vector<int64_t> counts = context->saved_data["counts"].toIntVector();
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &grad_y = grads[0], x = saved[0].detach(), z = saved[1].detach();
    const LowRankValues all = values_of(*adapter);
    const at::Tensor grad_z = at::empty_like(z);
    at::Tensor grad_x;
    if (context->saved_data["x_needs_grad"].toBool()) grad_x = at::empty_like(x);
    each_expert(counts, [&](int64_t e, const auto& rows) {
      const LowRankValues own = of_expert(all, e);
      rows(grad_z).copy_(own.up_gradient(rows(grad_y)));
      if (!grad_x.defined()) return;
      at::Tensor part;
      own.add_input_gradient(rows(grad_z), part);
      rows(grad_x).copy_(part);
    });
    add_deferred(context, [adapter, counts, grad_y, grad_z, x, z] {
      const GradientBuffers buffers(*adapter);
      for (size_t e = 0; e < counts.size(); ++e) {
        if (counts[e] == 0) buffers.of_expert(static_cast<int64_t>(e)).forget();
      }
      each_expert(counts, [&](int64_t e, const auto& rows) {
        buffers.of_expert(e).add(*adapter, rows(grad_y), rows(x), rows(z), rows(grad_z));
      });
    });
    return {grad_x, {}, {}, {}, {}};
  }
};

at::Tensor anchor_of(bool trainable) {
  return trainable ? gradient_anchor() : gradient_anchor().detach();
}

}  // namespace

bool is_trained(const LowRank& adapter) {
  return adapter.a->trainable() || adapter.b->trainable() ||
         (adapter.magnitude && adapter.magnitude->trainable());
}

LowRankValues values_of(const LowRank& adapter) {
  return {adapter.a->value(), adapter.b->value(), adapter.scale, adapter.modules};
}

at::Tensor LowRankValues::down(const at::Tensor& x) const { return gemm_nt(x, a); }

void LowRankValues::add_up(const at::Tensor& z, at::Tensor y) const {
  const int64_t rank = b.size(1);
  each_module(modules, rank, [&](int64_t column, const LowRank::Rows& rows, int64_t row) {
    at::Tensor part = y.narrow(1, rows.first, rows.count);
    at::addmm_out(part, part, z.narrow(1, column, rank), b.narrow(0, row, rows.count).t(), 1.0,
                  scale);
  });
}

at::Tensor LowRankValues::up_gradient(const at::Tensor& grad_y) const {
  const int64_t rank = b.size(1), tokens = grad_y.size(0);
  const at::Tensor grad_z = at::zeros({tokens, a.size(0)}, grad_y.options());
  each_module(modules, rank, [&](int64_t column, const LowRank::Rows& rows, int64_t row) {
    at::Tensor part = grad_z.narrow(1, column, rank);
    at::addmm_out(part, part, grad_y.narrow(1, rows.first, rows.count),
                  b.narrow(0, row, rows.count), 0.0, scale);
  });
  return grad_z;
}

void LowRankValues::add_input_gradient(const at::Tensor& grad_z, at::Tensor& grad_x) const {
  if (grad_x.defined()) {
    at::addmm_out(grad_x, grad_x, grad_z, a);
  } else {
    grad_x = at::mm(grad_z, a);
  }
}

void accumulate_low_rank(const LowRank& adapter, const at::Tensor& grad_y, const at::Tensor& x,
                         const at::Tensor& z, const at::Tensor& grad_z) {
  GradientBuffers(adapter).add(adapter, grad_y, x, z, grad_z);
}

at::Tensor row_lengths(const Parameter& weight, const LowRank& adapter) {
  const at::Tensor sum = sum_of(weight, adapter);
  const at::Tensor lengths =
      (sum.scalar_type() == at::kDouble ? sum : sum.to(at::kFloat)).norm(2, {1});
  std::vector<at::Tensor> own;
  for (const LowRank::Rows& rows : adapter.modules)
    own.push_back(lengths.narrow(0, rows.first, rows.count));
  return at::cat(own);
}

at::Tensor merged_weight(const Parameter& weight, const LowRank& adapter) {
  const at::Tensor sum = sum_of(weight, adapter), factors = factors_of(weight, adapter);
  return factors.defined() ? sum.mul_(factors.unsqueeze(1)) : sum;
}

at::Tensor adapted_linear(const at::Tensor& x, Parameter& weight, Parameter* bias,
                          const LowRank& adapter) {
  if (!use_torch(Op::kLinear, x) && !adapter.magnitude) {
    std::vector<Parameter*> parameters{&weight, adapter.a, adapter.b};
    if (bias) parameters.push_back(bias);
    const auto formula = [scale = adapter.scale, modules = adapter.modules](
                             const Tensors& inputs, const Tensors& weights) {
      return Tensors{reference::adapted_linear(inputs[0], weights[0],
                                               weights.size() > 3 ? weights[3] : at::Tensor(),
                                               weights[1], weights[2], scale, modules)};
    };
    return apply_reference(formula, {x}, parameters)[0];
  }
  if (!at::GradMode::is_enabled() && !adapter.magnitude) {
    const at::Tensor y = linear(x, weight, bias);
    const LowRankValues low_rank = values_of(adapter);
    low_rank.add_up(low_rank.down(x), y);
    return y;
  }
  const bool trainable = is_trained(adapter) || weight.trainable() || (bias && bias->trainable());
  return AdaptedLinearFunction::apply(x, anchor_of(trainable), &weight, bias, &adapter);
}

at::Tensor grouped_low_rank(const at::Tensor& x, const std::vector<int64_t>& counts, int64_t out,
                            const LowRank& adapter) {
  return GroupedLowRankFunction::apply(x.contiguous(), anchor_of(is_trained(adapter)), counts, out,
                                       &adapter);
}

namespace reference {

at::Tensor adapted_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const at::Tensor& a, const at::Tensor& b, double scale,
                          const std::vector<LowRank::Rows>& modules) {
  const at::Tensor z = x.matmul(a.t());
  const int64_t rank = b.size(1);
  std::vector<at::Tensor> parts;
  int64_t next = 0;  // rows of W
  const auto fill_to = [&](int64_t row) {
    if (row > next) parts.push_back(at::zeros({x.size(0), row - next}, x.options()));
  };
  each_module(modules, rank, [&](int64_t column, const LowRank::Rows& rows, int64_t row) {
    fill_to(rows.first);
    parts.push_back(scale * z.narrow(1, column, rank).matmul(b.narrow(0, row, rows.count).t()));
    next = rows.first + rows.count;
  });
  fill_to(weight.size(0));
  return linear(x, weight, bias) + at::cat(parts, 1);
}

}  // namespace reference

}  // namespace qianli::ops
