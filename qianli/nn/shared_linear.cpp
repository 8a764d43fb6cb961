#include "qianli/nn/shared_linear.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <fmt/core.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "qianli/base/trace.h"
#include "qianli/ops/deferred_gradients.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/gemm.h"
#include "qianli/ops/linear.h"
#include "qianli/plan/model_part.h"

namespace qianli::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Tensors = std::vector<at::Tensor>;

// Every rank has all rows.
class SumFunction : public torch::autograd::Function<SumFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const dist::Group* group,
                            bool forwards) {
    context->saved_data["group"] = reinterpret_cast<int64_t>(group);
    context->saved_data["forwards"] = forwards;
    return forwards ? summed(x, *group) : x.view_as(x);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    if (context->saved_data["forwards"].toBool()) return {grads[0], {}, {}};
    const auto* group = reinterpret_cast<dist::Group*>(context->saved_data["group"].toInt());
    return {summed(grads[0], *group), {}, {}};
  }

 private:
  static at::Tensor summed(const at::Tensor& part, const dist::Group& group) {
    const at::Tensor sum = part.clone(at::MemoryFormat::Contiguous);
    group.all_reduce(sum);
    return sum;
  }
};

struct Call : SharedLinears, torch::CustomClassHolder {
  explicit Call(SharedLinears given) : SharedLinears(std::move(given)) {}

  bool learns = false;  // any weight
  bool input_needs_gradient = false;

  bool adds_bias() const { return !out.group || out.group->rank() == 0; }
  ops::Parameter* bias_of(const Linear& linear) const {
    return adds_bias() ? linear.bias : nullptr;
  }

  Tensors products(const at::Tensor& rows) const {
    const trace::Span span([&] { return fmt::format("product of {} rows", rows.size(0)); });
    Tensors results;
    for (const Linear& linear : linears) {
      const ops::Parameter* bias = bias_of(linear);
      results.push_back(
          ops::gemm_nt(rows, linear.weight->value(), bias ? bias->value() : at::Tensor()));
      if (!linear.adapter) continue;
      const ops::LowRankValues low_rank = ops::values_of(*linear.adapter);
      low_rank.add_up(low_rank.down(rows), results.back());
    }
    return results;
  }
  // The gradient of the input's rows from that of the results'.
  at::Tensor input_gradient(const Tensors& grads) const {
    const trace::Span span([&] { return fmt::format("gradient of {} rows", grads[0].size(0)); });
    at::Tensor sum;
    for (size_t i = 0; i < linears.size(); ++i) {
      const at::Tensor part = ops::gemm_nt(grads[i], linears[i].weight->value().t());
      sum = sum.defined() ? sum.add_(part) : part;
      if (!linears[i].adapter) continue;
      const ops::LowRankValues low_rank = ops::values_of(*linears[i].adapter);
      low_rank.add_input_gradient(low_rank.up_gradient(grads[i]), sum);
    }
    return sum;
  }
  // Whether gradients of weights are made of all rows of x. Those of adapters alone are not, where
  // ranks hold rows each: the gradient of x A^T, which is narrow, is summed to those who hold the
  // rows, and each makes its part of A's gradient (CCLoRA).
  bool gathers_input() const {
    if (!in.rows || out.group || out.rows) return true;
    return std::ranges::any_of(linears,
                               [](const Linear& linear) { return linear.weight->trainable(); });
  }
  // What gradients of adapters are made of: x A^T of the rows that this rank holds of x, and its
  // gradient on all. Made while the parameters have values.
  struct Narrow {
    Tensors held, grads;  // of each linear; undefined: it has no adapter
  };
  Narrow narrow(const Tensors& grads, const at::Tensor& x) const {
    Narrow made{.held = Tensors(linears.size()), .grads = Tensors(linears.size())};
    for (size_t i = 0; i < linears.size(); ++i) {
      if (!linears[i].adapter) continue;
      const ops::LowRankValues low_rank = ops::values_of(*linears[i].adapter);
      made.held[i] = low_rank.down(x);
      made.grads[i] = low_rank.up_gradient(grads[i]);
    }
    return made;
  }
  // x: all rows, or those that this rank holds, as gathers_input() has it.
  void accumulate_weights(const Tensors& grads, const at::Tensor& x, const Narrow& narrow) const {
    const trace::Span span([] { return std::string("gradient of weights"); });
    for (size_t i = 0; i < linears.size(); ++i) {
      if (linears[i].weight->trainable())
        ops::accumulate_weight_gradient(*linears[i].weight, grads[i], x);
      if (!linears[i].adapter) continue;
      const at::Tensor grad_z =
          gathers_input() ? narrow.grads[i] : in.start_leaving(narrow.grads[i]).wait();
      ops::accumulate_low_rank(*linears[i].adapter, grads[i], x,
                               in.start_entering(narrow.held[i]).wait(), grad_z);
    }
  }
  void accumulate_biases(const Tensors& grads) const {
    for (size_t i = 0; i < linears.size(); ++i) {
      ops::Parameter* bias = bias_of(linears[i]);
      if (!bias || !bias->trainable()) continue;
      at::Tensor& buffer = bias->grad_to_add();
      buffer.add_(grads[i].sum(0, /*keepdim=*/false, buffer.scalar_type()));
    }
  }

  // slice(i) starts what brings the i-th slice of rows; use(i, all of these rows).
  template <class Start, class Use>
  void as_they_come(const Start& start, const Use& use) const {
    auto next = start(0);
    for (int64_t i = 0; i < slices; ++i) {
      auto here = std::move(next);
      if (i + 1 < slices) next = start(i + 1);
      use(i, here);
    }
  }
};

// [rows, as wide as each]
Tensors empty_like_rows(const Tensors& each, int64_t rows) {
  Tensors whole;
  for (const at::Tensor& one : each) whole.push_back(at::empty({rows, one.size(1)}, one.options()));
  return whole;
}

Tensors leave_all(const Call& call, const Tensors& parts) {
  std::vector<MovingRows> moving;
  for (const at::Tensor& part : parts) moving.push_back(call.out.start_leaving(part));
  Tensors held;
  for (MovingRows& each : moving) held.push_back(each.wait());
  return held;
}

// The gather of a slice goes on under the products of the one before.
Tensors products_while_gathering(const Call& call, const at::Tensor& x) {
  const SharedRows& rows = *call.in.rows;
  Tensors whole;
  call.as_they_come(
      [&](int64_t i) {
        return rows.slice(i, call.slices).start_gather(rows.own_slice(x, i, call.slices));
      },
      [&](int64_t i, MovingRows& slice) {
        const Tensors parts = call.products(slice.wait());
        if (whole.empty()) whole = empty_like_rows(parts, rows.total());
        for (size_t k = 0; k < parts.size(); ++k)
          rows.put_slice(whole[k], parts[k], i, call.slices);
      });
  return whole;
}

// The sum of a slice goes on under the product of the next one.
Tensors products_while_summing(const Call& call, const at::Tensor& x) {
  const auto& rows = call.out.rows;
  std::vector<std::vector<MovingRows>> moving(call.linears.size());
  for (int64_t i = 0; i < call.slices; ++i) {
    const plan::IndexRange even = plan::Share{i, call.slices}.of(x.size(0));
    const Tensors parts = call.products(rows ? rows->take_slice(x, i, call.slices)
                                             : x.narrow(0, even.begin, even.count()));
    const Side side{.group = call.out.group,
                    .rows = rows ? std::optional(rows->slice(i, call.slices)) : std::nullopt};
    for (size_t k = 0; k < parts.size(); ++k) moving[k].push_back(side.start_leaving(parts[k]));
  }
  Tensors held;
  for (auto& slices : moving) {
    Tensors parts;
    for (MovingRows& slice : slices) parts.push_back(slice.wait());
    held.push_back(at::cat(parts));
  }
  return held;
}

struct Gradients {
  Tensors results;   // all rows of each
  at::Tensor input;  // of all rows that came in: a part of a sum; undefined: nobody asks
};

// The gradients of results come in slices, and that of the input is made meanwhile.
Gradients gradients_while_gathering(const Call& call, const Tensors& held) {
  const SharedRows& rows = *call.out.rows;
  Gradients found{.results = empty_like_rows(held, rows.total()), .input = {}};
  call.as_they_come(
      [&](int64_t i) {
        std::vector<MovingRows> slice;
        for (const at::Tensor& grad : held)
          slice.push_back(
              rows.slice(i, call.slices).start_gather(rows.own_slice(grad, i, call.slices)));
        return slice;
      },
      [&](int64_t i, std::vector<MovingRows>& slice) {
        Tensors grads;
        for (size_t k = 0; k < slice.size(); ++k) {
          grads.push_back(slice[k].wait());
          rows.put_slice(found.results[k], grads[k], i, call.slices);
        }
        if (!call.input_needs_gradient) return;
        const at::Tensor part = call.input_gradient(grads);
        if (i == 0) found.input = at::empty({rows.total(), part.size(1)}, part.options());
        rows.put_slice(found.input, part, i, call.slices);
      });
  return found;
}

Gradients gradients_of(const Call& call, const Tensors& held) {
  if (call.out.rows && call.slices > 1) return gradients_while_gathering(call, held);
  Gradients found;
  for (const at::Tensor& grad : held) found.results.push_back(call.out.start_entering(grad).wait());
  if (call.input_needs_gradient) found.input = call.input_gradient(found.results);
  return found;
}

class SharedLinearFunction : public torch::autograd::Function<SharedLinearFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const at::Tensor&,
                               const c10::intrusive_ptr<Call>& call) {
    call->input_needs_gradient = x.requires_grad();
    call->learns = std::ranges::any_of(
        call->linears, [](const Linear& linear) { return linear.learns_from_input(); });
    if (call->learns) context->save_for_backward({x});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    ops::remember_deferred(context);
    if (call->in.rows && call->slices > 1)
      return leave_all(*call, products_while_gathering(*call, x));
    const at::Tensor entered = call->in.start_entering(x).wait();
    if (call->out.group && call->slices > 1) return products_while_summing(*call, entered);
    return leave_all(*call, call->products(entered));
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto call =
        c10::static_intrusive_pointer_cast<Call>(context->saved_data["call"].toCapsule());
    const at::Tensor x = call->learns ? context->get_saved_variables()[0].detach() : at::Tensor();
    // Weights' gradients that are made later gather then: nothing is kept until they are.
    const bool later = call->learns && ops::is_deferred(context);
    MovingRows entering;
    const auto start_entering = [call, x] {
      return call->gathers_input() ? call->in.start_entering(x) : MovingRows(x);
    };
    if (call->learns && !later) entering = start_entering();
    const Gradients found = gradients_of(*call, grads);
    const Call::Narrow narrow = call->learns ? call->narrow(found.results, x) : Call::Narrow();
    MovingRows leaving;
    if (found.input.defined()) leaving = call->in.start_leaving(found.input);
    if (later) {
      ops::add_deferred(context, [call, results = found.results, start_entering, narrow] {
        call->accumulate_weights(results, start_entering().wait(), narrow);
      });
    } else if (call->learns) {
      call->accumulate_weights(found.results, entering.wait(), narrow);
    }
    call->accumulate_biases(found.results);
    return {leaving.wait(), {}, {}};
  }
};

// By the formulas of the ops, one after the other.
Tensors composed(const at::Tensor& x, const Call& call) {
  const at::Tensor entered = call.in.enter(x);
  Tensors results;
  for (const Linear& linear : call.linears) {
    const Linear own{linear.weight, call.bias_of(linear), linear.adapter, linear.attached};
    results.push_back(call.out.leave(own(entered)));
  }
  return results;
}

}  // namespace

at::Tensor Side::enter(const at::Tensor& held) const {
  if (rows) return rows->gather(held);
  return group ? SumFunction::apply(held, group, /*forwards=*/false) : held;
}

at::Tensor Side::leave(const at::Tensor& parts) const {
  if (rows) return rows->sum(parts);
  return group ? SumFunction::apply(parts, group, /*forwards=*/true) : parts;
}

MovingRows Side::start_entering(const at::Tensor& held) const {
  return rows ? rows->start_gather(held) : MovingRows(held);
}

MovingRows Side::start_leaving(const at::Tensor& parts) const {
  if (rows) return rows->start_sum(parts);
  if (!group) return MovingRows(parts);
  return {parts, group->start_all_reduce(parts)};
}

std::vector<at::Tensor> shared_linear(const at::Tensor& x, SharedLinears given) {
  const auto call = c10::make_intrusive<Call>(std::move(given));
  const bool alone = !call->in.group && !call->out.group;
  if (alone || !ops::use_torch(ops::Op::kLinear, x)) return composed(x, *call);
  const bool trainable =
      std::ranges::any_of(call->linears, [](const Linear& linear) { return linear.is_trained(); });
  const at::Tensor anchor = trainable ? ops::gradient_anchor() : ops::gradient_anchor().detach();
  return SharedLinearFunction::apply(x, anchor, call);
}

}  // namespace qianli::nn
