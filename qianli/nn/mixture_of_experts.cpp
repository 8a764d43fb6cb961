#include "qianli/nn/mixture_of_experts.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/random.h"
#include "qianli/nn/context_sum.h"
#include "qianli/nn/expert_exchange.h"
#include "qianli/nn/mlp.h"
#include "qianli/nn/shared_rows.h"
#include "qianli/ops/grouped_linear.h"
#include "qianli/ops/linear.h"
#include "qianli/plan/model_part.h"

namespace qianli::nn {
namespace {

void add_to(at::Tensor& sum, const at::Tensor& value) {
  if (!value.defined()) return;
  const at::Tensor exact = value.detach().to(at::kDouble);
  sum = sum.defined() ? sum + exact : exact;
}

void add_to(ops::BalancingLosses& sums, const ops::BalancingLosses& losses) {
  add_to(sums.tokens, losses.tokens);
  add_to(sums.sequence, losses.sequence);
  add_to(sums.device, losses.device);
  add_to(sums.communication, losses.communication);
  add_to(sums.z, losses.z);
}

// Of sums over so many microbatches.
RoutingSummary summary_of(const ops::BalancingLosses& sums, int64_t microbatches, double max_load) {
  const auto mean = [&](const at::Tensor& sum) -> std::optional<double> {
    if (!sum.defined()) return {};
    return sum.item<double>() / static_cast<double>(microbatches);
  };
  return {.aux_loss = mean(sums.tokens),
          .sequence_aux_loss = mean(sums.sequence),
          .device_aux_loss = mean(sums.device),
          .communication_aux_loss = mean(sums.communication),
          .z_loss = mean(sums.z),
          .max_load = max_load};
}

// The ranks of a tensor group that do not hold parts of the same experts share the tokens: each
// computes y for its own, and the sum over the group has all. [T, h] -> [T, h].
template <class Compute>
at::Tensor on_own_tokens(const at::Tensor& x, const ops::Routing& routing, const Parallel& parallel,
                         const Compute& compute) {
  const int64_t together = parallel.expert_tensor.size();
  const plan::Share share{parallel.tensor.rank() / together, parallel.tensor.size() / together};
  if (share.whole()) return compute(x, routing);
  const plan::IndexRange own = share.of(x.size(0));
  const auto rows = [&](const at::Tensor& all) { return all.narrow(0, own.begin, own.count()); };
  const at::Tensor y = compute(
      rows(x), {.weights = rows(routing.weights), .experts = rows(routing.experts).contiguous()});
  return at::constant_pad_nd(y, {0, 0, own.begin, x.size(0) - own.end});
}

}  // namespace

MixtureOfExperts::MixtureOfExperts(const model::ModelSpec& spec, const model::LayerSpec& layer,
                                   ParameterSet& parameters, const std::string& prefix)
    : moe_(*spec.moe),
      name_(prefix),
      gated_(spec.gated_mlp),
      activation_(activation_kind(spec.activation)),
      limit_(layer.expert_activation_limit),
      shared_limit_(layer.activation_limit),
      limit_first_(spec.limit_before_activation),
      router_{&parameters.at(prefix + ".router.weight"), parameters.find(prefix + ".router.bias")},
      fc1_(find_linear(parameters, prefix + ".experts.linear_fc1")),
      fc2_(find_linear(parameters, prefix + ".experts.linear_fc2")),
      shared_fc1_(find_linear(parameters, prefix + ".shared_experts.linear_fc1")),
      shared_fc2_(find_linear(parameters, prefix + ".shared_experts.linear_fc2")),
      shared_gate_(parameters.find(prefix + ".shared_experts.gate_weight")),
      selection_bias_(parameters.find(prefix + ".router.expert_bias")),
      token_experts_(parameters.find(prefix + ".router.token_experts")),
      bias_moves_(selection_bias_ &&
                  !parameters.part(parameters.index_of(prefix + ".router.weight")).frozen) {
  reset_statistics();
}

BlockOutput MixtureOfExperts::forward(const BlockInput& x, ForwardPass& pass) {
  return {forward(x.whole(), pass.input, pass.parallel)};
}

at::Tensor MixtureOfExperts::forward(const at::Tensor& x, const DecoderInput& input,
                                     const Parallel& parallel) {
  ops::Routing routing = route(x, input, parallel);
  int64_t rows_per_expert = 0;
  if (input.training && moe_.capacity_factor) {
    const int64_t limit = capacity(x.size(0));
    routing = ops::within_capacity(routing, moe_.num_experts, limit, moe_.token_drop_policy);
    if (moe_.pad_to_capacity) rows_per_expert = limit;
  }
  at::Tensor y = on_own_tokens(x, routing, parallel,
                               [&](const at::Tensor& own, const ops::Routing& own_routing) {
                                 return routed_experts(own, own_routing, rows_per_expert, parallel);
                               });
  if (moe_.num_zero_experts > 0 && parallel.tensor.rank() == 0) {
    const at::Tensor kept = routing.experts.ge(moe_.num_experts).to(routing.weights.scalar_type());
    y = y + x * (routing.weights * kept).sum(1, /*keepdim=*/true).to(x.scalar_type());
  }
  return shared_fc1_ ? y + shared_experts(x, parallel) : y;
}

ops::Routing MixtureOfExperts::route(const at::Tensor& x, const DecoderInput& input,
                                     const Parallel& parallel) {
  std::optional<ops::RandomRows> key;
  if (input.training) {
    key.emplace(random_key(input.random_key, name_));
    if (input.context) key->rows = input.context->tokens_of(parallel.context.rank());
    if (input.slice) key->rows = input.slice->tokens;
  }
  const bool jittered = key && moe_.input_jitter > 0;
  const at::Tensor seen = jittered ? ops::jitter(x, moe_.input_jitter, *key) : x;
  const at::Tensor logits =
      ops::router_logits(seen, *router_.weight, router_.bias, moe_.router_dtype);
  const at::Tensor bias = selection_bias_ ? selection_bias_->value() : at::Tensor();
  at::Tensor given;
  if (token_experts_) given = token_experts_->value().index_select(0, input.tokens).to(at::kLong);
  ops::Routing routing = ops::route(logits, bias, moe_, key, given);
  // Without gradients it is an evaluation, or a forward pass that will be made again.
  if (input.training && at::GradMode::is_enabled()) {
    add_balancing_losses(logits, routing, input, parallel);
  }
  return routing;
}

void MixtureOfExperts::add_balancing_losses(const at::Tensor& logits, ops::Routing& routing,
                                            const DecoderInput& input, const Parallel& parallel) {
  const ops::TokenSegments segments = token_segments(input, parallel.context);
  const at::Tensor counts = ops::count_choices(routing.experts, segments, logits.size(1));
  statistics_.choices += counts.sum(0).cpu();
  if (token_experts_) return;  // nothing that a loss could balance
  ++statistics_.microbatches;
  const ops::BalancingLosses losses =
      ops::balancing_losses(logits, routing, counts, segments, moe_);
  const at::Tensor sum = losses.weighted_sum(moe_);
  if (!sum.defined()) return;
  add_to(statistics_.losses, losses);
  // All ranks of the tensor group have this loss, and their gradients will be summed.
  const auto ranks = static_cast<double>(parallel.tensor.size());
  routing.weights = ops::inject_loss(routing.weights, sum, input.auxiliary_loss_scale / ranks);
}

int64_t MixtureOfExperts::capacity(int64_t tokens) const {
  const double even =
      static_cast<double>(moe_.top_k * tokens) / static_cast<double>(moe_.num_experts);
  return static_cast<int64_t>(std::ceil(even * *moe_.capacity_factor));
}

at::Tensor MixtureOfExperts::routed_experts(const at::Tensor& x, const ops::Routing& routing,
                                            int64_t rows_per_expert,
                                            const Parallel& parallel) const {
  const bool alone = parallel.experts.alone();
  if (!alone && parallel.dispatcher == Parallel::Dispatcher::kAllGather) {
    return experts_of_all_tokens(x, routing, parallel);
  }
  const ops::RowPlan plan = ops::plan_rows(routing.experts, moe_.num_experts, rows_per_expert);
  const at::Tensor rows = ops::gather_rows(x, plan);
  if (alone) return combine(experts(rows, plan.counts, plan.tokens, parallel), routing, plan);
  const ExpertExchange exchange(plan.counts, parallel.experts);
  const at::Tensor there = experts(exchange.to_experts(rows), exchange.counts(), {}, parallel);
  return combine(exchange.from_experts(there), routing, plan);
}

at::Tensor MixtureOfExperts::experts_of_all_tokens(const at::Tensor& x, const ops::Routing& routing,
                                                   const Parallel& parallel) const {
  const SharedRows tokens = SharedRows::of_each(x.size(0), parallel.experts);
  const plan::IndexRange own =
      plan::Share{parallel.experts.rank(), parallel.experts.size()}.of(moe_.num_experts);
  const at::Tensor all = tokens.gather(x);
  at::Tensor chosen = tokens.gathered(routing.experts) - own.begin;
  chosen = at::where(chosen < own.count(), chosen, at::scalar_tensor(-1, chosen.options()));
  const ops::RowPlan plan = ops::plan_rows(chosen, own.count());
  const at::Tensor rows = experts(ops::gather_rows(all, plan), plan.counts, {}, parallel);
  return tokens.sum(combine(rows, {.weights = tokens.gather(routing.weights)}, plan));
}

at::Tensor MixtureOfExperts::combine(const at::Tensor& rows, const ops::Routing& routing,
                                     const ops::RowPlan& plan) const {
  const bool widest = rows.scalar_type() == at::kDouble;
  return ops::combine_rows(rows, routing.weights.to(widest ? at::kDouble : at::kFloat), plan);
}

at::Tensor MixtureOfExperts::experts(const at::Tensor& rows, const std::vector<int64_t>& counts,
                                     const at::Tensor& tokens, const Parallel& parallel) const {
  const auto through = [&](const Linear& linear, const at::Tensor& x, ops::Parameter* bias) {
    const at::Tensor y = ops::grouped_linear(x, counts, *linear.weight, bias);
    if (linear.attached->in_use()) linear.attached->add_to_experts(x, counts, tokens, y);
    if (!linear.adapter) return y;
    return y + ops::grouped_low_rank(x, counts, y.size(1), *linear.adapter);
  };
  const at::Tensor wide = through(fc1_, rows, fc1_.bias);
  ops::Parameter* bias = parallel.expert_tensor.rank() == 0 ? fc2_.bias : nullptr;
  return through(fc2_, activate(wide, limit_), bias);
}

at::Tensor MixtureOfExperts::activate(const at::Tensor& wide, double limit) const {
  return gated_ ? gated_branches(wide, activation_, limit, limit_first_)
                : ops::activation(wide, activation_);
}

at::Tensor MixtureOfExperts::shared_experts(const at::Tensor& x, const Parallel& parallel) const {
  const at::Tensor y = shared_fc2_.partial(activate(shared_fc1_(x), shared_limit_), parallel);
  return shared_gate_ ? y * ops::linear(x, *shared_gate_).sigmoid() : y;
}

void MixtureOfExperts::update_selection_bias(const at::Tensor& choices) {
  if (!bias_moves_) return;
  const at::NoGradGuard no_grad;
  at::Tensor bias = selection_bias_->value();
  bias.add_((choices.mean() - choices).sign().to(bias.options()), moe_.bias_update_rate);
}

void MixtureOfExperts::reset_statistics() {
  statistics_ = {.choices = at::zeros({moe_.num_experts + moe_.num_zero_experts}, at::kDouble)};
}

void sum_statistics(const std::vector<MixtureOfExperts*>& mixtures, const dist::Group& replicas) {
  if (replicas.alone() || mixtures.empty()) return;
  // One message for all layers, between hosts: choices are counted there.
  std::vector<at::Tensor> parts, targets;
  for (MixtureOfExperts* mixture : mixtures) {
    RoutingStatistics& statistics = mixture->statistics();
    statistics.microbatches *= replicas.size();
    ops::BalancingLosses& losses = statistics.losses;
    for (at::Tensor* sum : {&statistics.choices, &losses.tokens, &losses.sequence, &losses.device,
                            &losses.communication, &losses.z}) {
      if (!sum->defined()) continue;
      targets.push_back(*sum);
      parts.push_back(sum->reshape({-1}).to(at::kCPU, at::kDouble));
    }
  }
  const at::Tensor all = at::cat(parts);
  replicas.all_reduce(all);
  int64_t next = 0;
  for (const at::Tensor& target : targets) {
    target.copy_(all.narrow(0, next, target.numel()).view(target.sizes()));
    next += target.numel();
  }
}

StepRouting finish_routing_step(const std::vector<MixtureOfExperts*>& mixtures) {
  StepRouting step;
  int64_t microbatches = 0;
  double max_load = 0;
  ops::BalancingLosses sums;
  for (MixtureOfExperts* mixture : mixtures) {
    const RoutingStatistics& statistics = mixture->statistics();
    const double mean = statistics.choices.mean().item<double>();
    const double load = mean > 0 ? statistics.choices.max().item<double>() / mean : 0;
    step.layers.push_back(
        {mixture->name(), summary_of(statistics.losses, statistics.microbatches, load)});
    max_load = std::max(max_load, load);
    microbatches += statistics.microbatches;
    add_to(sums, statistics.losses);
    mixture->update_selection_bias(statistics.choices);
    mixture->reset_statistics();
  }
  step.all = summary_of(sums, microbatches, max_load);
  return step;
}

}  // namespace qianli::nn
