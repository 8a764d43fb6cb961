#include "qianli/nn/task_attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/nn/task_exchange.h"
#include "qianli/nn/task_messages.h"

namespace qianli::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Cargo = plan::PlaceRound::Cargo;

// Messages are counted in elements; results travel in the dtype of queries.
std::vector<plan::PlaceRound> rounds_of_place(const QueriesKeysValues& own, const PlaceCall& call) {
  const plan::LinkCosts costs{.keys = own.k.size(1) * (own.k.size(2) + own.v.size(2)),
                              .queries = own.q.size(1) * own.q.size(2),
                              .result = own.q.size(1) * own.v.size(2)};
  const auto cells = data::open_cells(call.deal->places(), call.layout.causal, call.layout.window);
  return plan::rounds_of(plan::task_schedule(cells, costs), call.ring.rank());
}

// One task after the other of a forward pass.
class ForwardTasks {
 public:
  ForwardTasks(const QueriesKeysValues& own, PlaceCall& call,
               const std::vector<plan::PlaceRound>& rounds)
      : own_(own), call_(call), rounds_(rounds), sums_(call.parts().size()) {
    if (call.left.what != data::KeptKeys::kNone) call.left.blocks.resize(rounds.size());
  }

  PartSums run() {
    const at::Tensor keys = packed_keys(own_.k, own_.v), queries = packed_queries(own_.q);
    const TaskMessages messages{.keys = keys,
                                .queries = queries,
                                .query_results = result_columns(own_.q, own_.v.size(2)),
                                .results = own_.q.options()};
    run_tasks(
        rounds_, *call_.deal, call_.ring, messages,
        [&](size_t round, const at::Tensor& cargo) { return compute(round, cargo); },
        [&](Cargo, const at::Tensor& result) {
          merge_result(sums_, result, call_.parts(), own_.q.size(1));
        });
    return std::move(sums_);
  }

 private:
  at::Tensor compute(size_t round, const at::Tensor& cargo) {
    const auto& task = *rounds_[round].task;
    keep(round, cargo);
    if (task.query == call_.ring.rank()) {
      const KeysAndValues keys = cargo.defined()
                                     ? unpacked_keys(cargo, own_.k.size(1), own_.k.size(2))
                                     : KeysAndValues{own_.k, own_.v};
      merge_attention(sums_, own_.q, call_.parts(), {keys.k, keys.v, call_.deal->parts(task.key)},
                      call_);
      return {};
    }
    const auto& parts = call_.deal->parts(task.query);
    const at::Tensor q = cargo.unflatten(1, {own_.q.size(1), own_.q.size(2)});
    PartSums sums(parts.size());
    merge_attention(sums, q, parts, {own_.k, own_.v, call_.parts()}, call_);
    return packed_result(sums, parts, q, own_.v.size(2));
  }
  // For the backward pass: keys with their values or without, and queries beside the former.
  void keep(size_t round, const at::Tensor& cargo) {
    const auto what = call_.left.what;
    if (!cargo.defined() || what == data::KeptKeys::kNone) return;
    if (what == data::KeptKeys::kAll) {
      call_.left.blocks[round] = cargo;
    } else if (rounds_[round].comes->cargo == Cargo::kKeys) {
      call_.left.blocks[round] = cargo.narrow(1, 0, own_.k.size(1) * own_.k.size(2)).contiguous();
    }
  }

  const QueriesKeysValues& own_;
  PlaceCall& call_;
  const std::vector<plan::PlaceRound>& rounds_;
  PartSums sums_;
};

// One task after the other of a backward pass.
class BackwardTasks {
 public:
  BackwardTasks(const QueriesKeysValues& own, const FinishedQueries& queries, const PlaceCall& call,
                const std::vector<plan::PlaceRound>& rounds)
      : own_(own), queries_(queries), call_(call), rounds_(rounds) {
    const auto wide = own.q.options().dtype(wide_type(own.q));
    grad_q_ = at::zeros({own.q.size(0), own.q.size(1) * own.q.size(2)}, wide);
    grad_keys_ = at::zeros({own.k.size(0), own.k.size(1) * (own.k.size(2) + own.v.size(2))}, wide);
  }

  void run() {
    const auto what = call_.left.what;
    const at::Tensor keys = packed_keys(own_.k, own_.v);
    const int64_t key_columns = own_.k.size(1) * own_.k.size(2);
    const bool values_only = what == data::KeptKeys::kKeys, complete = what == data::KeptKeys::kAll;
    TaskMessages messages{.queries = packed_finished(queries_, /*with_queries=*/!complete),
                          .key_results = grad_keys_.size(1),
                          .query_results = grad_q_.size(1),
                          .results = grad_q_.options()};
    if (!complete) {
      messages.keys =
          values_only ? keys.narrow(1, key_columns, keys.size(1) - key_columns).contiguous() : keys;
    }
    run_tasks(
        rounds_, *call_.deal, call_.ring, messages,
        [&](size_t round, const at::Tensor& cargo) { return compute(round, cargo); },
        [&](Cargo cargo, const at::Tensor& result) {
          (cargo == Cargo::kKeys ? grad_keys_ : grad_q_).add_(result);
        });
  }
  at::Tensor grad_q() const { return grad_q_.view(own_.q.sizes()).to(own_.q.scalar_type()); }
  KeysAndValues grad_keys() const {
    return unpacked_keys(grad_keys_.to(own_.k.scalar_type()), own_.k.size(1), own_.k.size(2));
  }

 private:
  at::Tensor compute(size_t round, const at::Tensor& cargo) {
    const auto& task = *rounds_[round].task;
    const auto& comes = rounds_[round].comes;
    if (task.query != call_.ring.rank()) return compute_for(task.query, round, cargo);
    const KeysAndValues keys = comes ? keys_of(round, cargo) : KeysAndValues{own_.k, own_.v};
    const at::Tensor gradient =
        comes ? at::zeros({keys.k.size(0), grad_keys_.size(1)}, grad_keys_.options()) : grad_keys_;
    add_gradients(queries_, {keys.k, keys.v, call_.deal->parts(task.key)}, call_,
                  grad_q_.view(own_.q.sizes()),
                  unpacked_keys(gradient, own_.k.size(1), own_.k.size(2)));
    return gradient;
  }
  // The queries of another place to the own keys.
  at::Tensor compute_for(int64_t owner, size_t round, const at::Tensor& cargo) {
    const bool kept = call_.left.what == data::KeptKeys::kAll;
    const FinishedQueries queries =
        unpacked_finished(cargo, kept ? call_.left.blocks[round] : at::Tensor(),
                          call_.deal->parts(owner), own_, wide_type(own_.q));
    const at::Tensor gradient = at::zeros({queries.q.size(0), grad_q_.size(1)}, grad_q_.options());
    add_gradients(queries, {own_.k, own_.v, call_.parts()}, call_, gradient.view(queries.q.sizes()),
                  unpacked_keys(grad_keys_, own_.k.size(1), own_.k.size(2)));
    return gradient;
  }
  KeysAndValues keys_of(size_t round, const at::Tensor& cargo) const {
    const int64_t heads = own_.k.size(1), dim = own_.k.size(2);
    switch (call_.left.what) {
      case data::KeptKeys::kNone:
        break;
      case data::KeptKeys::kAll:
        return unpacked_keys(call_.left.blocks[round], heads, dim);
      case data::KeptKeys::kKeys:
        return {call_.left.blocks[round].unflatten(1, {heads, dim}),
                cargo.unflatten(1, {heads, -1})};
    }
    return unpacked_keys(cargo, heads, dim);
  }

  const QueriesKeysValues& own_;
  const FinishedQueries& queries_;
  const PlaceCall& call_;
  const std::vector<plan::PlaceRound>& rounds_;
  at::Tensor grad_q_, grad_keys_;  // [rows, columns]
};

class TaskAttention : public torch::autograd::Function<TaskAttention> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor&,
                            const c10::intrusive_ptr<PlaceCall>& call) {
    const QueriesKeysValues own{q, k, v};
    const auto rounds = rounds_of_place(own, *call);
    PartSums sums = ForwardTasks(own, *call, rounds).run();
    add_sinks(sums, *call);
    const at::Tensor out = output_of(sums, call->parts(), q, v.size(2));
    variable_list saved = {q, k, v, out};
    for (const auto& sum : sums) saved.push_back(sum.lse);
    context->save_for_backward(saved);
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto call =
        c10::static_intrusive_pointer_cast<PlaceCall>(context->saved_data["call"].toCapsule());
    const QueriesKeysValues own{saved[0], saved[1], saved[2]};
    const FinishedQueries queries{
        own.q, call->parts(), saved[3], grads[0].contiguous(), {saved.begin() + 4, saved.end()}};
    const auto rounds = rounds_of_place(own, *call);
    BackwardTasks tasks(own, queries, *call, rounds);
    tasks.run();
    add_sink_gradient(queries, *call);
    const KeysAndValues grad_keys = tasks.grad_keys();
    return {tasks.grad_q(), grad_keys.k, grad_keys.v, {}, {}};
  }
};

}  // namespace

at::Tensor task_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const c10::intrusive_ptr<PlaceCall>& call) {
  return TaskAttention::apply(q, k, v, sink_anchor(*call), call);
}

}  // namespace qianli::nn
