#include "qianli/ops/router.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "qianli/base/random.h"
#include "qianli/ops/deferred_gradients.h"
#include "qianli/ops/gemm.h"
#include "qianli/ops/linear.h"
#include "qianli/ops/sinkhorn.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class RouterLogitsFunction : public torch::autograd::Function<RouterLogitsFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor&,
                            Parameter* weight, Parameter* bias) {
    const at::Tensor matrix = weight->value().to(x.scalar_type());
    context->save_for_backward({x, matrix});
    remember_deferred(context);
    context->saved_data["weight"] = reinterpret_cast<int64_t>(weight);
    context->saved_data["bias"] = reinterpret_cast<int64_t>(bias);
    return gemm_nt(x, matrix, bias ? bias->value().to(x.scalar_type()) : at::Tensor());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto* weight = reinterpret_cast<Parameter*>(context->saved_data["weight"].toInt());
    auto* bias = reinterpret_cast<Parameter*>(context->saved_data["bias"].toInt());
    const auto saved = context->get_saved_variables();
    if (weight->trainable()) {
      add_deferred(context, [weight, grad_logits = grads[0], x = saved[0].detach()] {
        accumulate_weight_gradient(*weight, grad_logits, x);
      });
    }
    if (bias && bias->trainable()) bias->grad_to_add().add_(grads[0].sum(0));
    return {gemm_nt(grads[0], saved[1].t()), {}, {}, {}};
  }
};

// The `count` largest of row[0 … size), best first; of equals the first. A row of NaN still gives
// different indices.
template <class T>
void largest_of(const T* row, int64_t size, int64_t count, int64_t* out) {
  int64_t found = 0;
  for (int64_t e = 0; e < size; ++e) {
    if (found == count && !(row[e] > row[out[count - 1]])) continue;
    int64_t place = found < count ? found++ : count - 1;
    for (; place > 0 && row[e] > row[out[place - 1]]; --place) out[place] = out[place - 1];
    out[place] = e;
  }
}

template <class T>
void choose_rows(const at::Tensor& scores, at::Tensor& chosen) {
  const int64_t size = scores.size(1), count = chosen.size(1);
  const T* from = scores.data_ptr<T>();
  int64_t* to = chosen.data_ptr<int64_t>();
  at::parallel_for(0, scores.size(0), 256, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) largest_of(from + t * size, size, count, to + t * count);
  });
}

// Scores of groups that are not among the best `topk_groups` become -infinity.
at::Tensor limit_to_groups(const at::Tensor& scores, const model::MixtureOfExperts& moe) {
  if (moe.num_groups <= 1 || moe.topk_groups >= moe.num_groups) return scores;
  const at::Tensor grouped = scores.view({scores.size(0), moe.num_groups, -1});
  const int64_t counted =
      moe.group_score == model::GroupScore::kMax ? 1 : std::min<int64_t>(2, grouped.size(2));
  const at::Tensor group_scores = std::get<0>(grouped.topk(counted, -1)).sum(-1);
  at::Tensor shut = at::ones_like(group_scores, at::kBool);
  shut.scatter_(1, choose_largest(group_scores, moe.topk_groups), false);
  return grouped.masked_fill(shut.unsqueeze(2), -kInfinity).view(scores.sizes());
}

// From the logits or the scores that come from them.
at::Tensor choose_experts(const at::Tensor& logits, const at::Tensor& scores,
                          const at::Tensor& selection_bias, const model::MixtureOfExperts& moe,
                          bool training) {
  const at::NoGradGuard no_grad;
  if (moe.sinkhorn && training) return choose_largest(sinkhorn(logits), moe.top_k);
  const at::Tensor biased =
      selection_bias.defined() ? scores + selection_bias.to(scores.scalar_type()) : scores;
  return choose_largest(limit_to_groups(biased.detach(), moe), moe.top_k);
}

at::Tensor normalized(const at::Tensor& weights, const model::MixtureOfExperts& moe) {
  at::Tensor result = weights;
  if (moe.normalize_top_k) {
    const bool may_all_be_0 =
        moe.score == model::RouterScore::kSigmoid || moe.score == model::RouterScore::kSqrtSoftplus;
    const double eps = may_all_be_0 ? 1e-20 : 0.0;
    result = result / (result.sum(-1, /*keepdim=*/true) + eps);
  }
  return moe.scaling_factor == 1.0 ? result : result * moe.scaling_factor;
}

// Uniform numbers in (0, 1); shape: [T, width].
at::Tensor uniform(at::IntArrayRef shape, const at::Tensor& like, const RandomRows& random) {
  at::Tensor values = at::empty(shape, at::kDouble);
  double* value = values.data_ptr<double>();
  const int64_t width = shape[1];
  at::parallel_for(0, values.numel(), 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t number =
          random.rows.empty() ? i : random.rows[static_cast<size_t>(i / width)] * width + i % width;
      value[i] = uniform_at(random.key, static_cast<uint64_t>(number)) + 0x1p-54;
    }
  });
  return values.to(like.options());
}

// One pick of the sparse mixer among the experts not yet `taken` ([T, E] bool): far ones are left
// out, the weight is a softmax over the rest.
struct Pick {
  at::Tensor weight;  // [T, 1]
  at::Tensor expert;  // [T, 1]
};
Pick sparse_mixer_pick(const at::Tensor& logits, const at::Tensor& taken, double epsilon,
                       bool sampled, const RandomRows& random) {
  const at::Tensor open = logits.masked_fill(taken, -kInfinity);
  at::Tensor kept, best, expert;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor largest = open.amax(-1, /*keepdim=*/true);
    const at::Tensor distance = (largest - logits) / at::maximum(logits.abs(), largest);
    kept = open.masked_fill(distance > 2.0 * epsilon, -kInfinity);
    best = choose_largest(kept.detach(), 1);
    expert = best;
    if (sampled) {
      const at::Tensor gumbel = -(-uniform(kept.sizes(), kept, random).log()).log();
      expert = choose_largest(kept.detach() + gumbel, 1);
    }
  }
  const at::Tensor softmax = at::softmax(open.masked_fill(kept == -kInfinity, -kInfinity), -1);
  at::Tensor weight = softmax.gather(1, expert);
  if (sampled) {
    // Heun's third-order estimate: the value is scaled, the gradient is that of the plain weight.
    const at::Tensor plain =
        (expert == best)
            .logical_or(uniform(best.sizes(), kept, {random.key ^ 0x5bd1e995, random.rows}) > 0.75);
    const at::Tensor factor = (plain.to(weight.scalar_type()) * 2.0 + 1.0) / 3.0;
    weight = weight + weight.detach() * (factor - 1.0);
  }
  return {weight, expert};
}

Routing sparse_mixer(const at::Tensor& logits, const model::MixtureOfExperts& moe,
                     const std::optional<RandomRows>& random) {
  at::Tensor taken = at::zeros_like(logits, at::kBool);
  std::vector<at::Tensor> weights, experts;
  for (int64_t i = 0; i < moe.top_k; ++i) {
    RandomRows own = random.value_or(RandomRows{});
    own.key += 0x9e3779b97f4a7c15u * static_cast<uint64_t>(i + 1);
    const Pick pick =
        sparse_mixer_pick(logits, taken, moe.sparse_mixer_epsilon, random.has_value(), own);
    taken = taken.scatter(1, pick.expert, true);
    weights.push_back(pick.weight);
    experts.push_back(pick.expert);
  }
  return {at::cat(weights, 1), at::cat(experts, 1), at::softmax(logits, -1)};
}

// One expert's choices, in the order of tokens, of which `capacity` stay; null weights: the first
// ones, else those of the largest weights.
void drop_overflow(std::vector<int64_t>& choices, int64_t capacity, const double* weights,
                   int64_t* experts) {
  if (static_cast<int64_t>(choices.size()) <= capacity) return;
  const auto first = choices.begin() + capacity;
  if (weights) {
    std::nth_element(choices.begin(), first, choices.end(), [&](int64_t a, int64_t b) {
      return weights[a] > weights[b] || (weights[a] == weights[b] && a < b);
    });
  }
  std::for_each(first, choices.end(), [&](int64_t choice) { experts[choice] = -1; });
}

}  // namespace

at::Tensor router_logits(const at::Tensor& x, Parameter& weight, Parameter* bias,
                         model::RouterDtype dtype) {
  const bool widest = x.scalar_type() == at::kDouble || dtype == model::RouterDtype::kFloat64;
  const at::Tensor wide = x.to(widest ? at::kDouble : at::kFloat);
  const bool trainable = weight.trainable() || (bias && bias->trainable());
  const at::Tensor anchor = trainable ? gradient_anchor() : gradient_anchor().detach();
  return RouterLogitsFunction::apply(wide.contiguous(), anchor, &weight, bias);
}

at::Tensor jitter(const at::Tensor& x, double amplitude, const RandomRows& random) {
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  return wide * (1.0 - amplitude + 2.0 * amplitude * uniform(x.sizes(), wide, random));
}

at::Tensor choose_largest(const at::Tensor& scores, int64_t count) {
  if (!scores.is_cpu()) {
    const auto order = at::sort(scores, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
    return std::get<1>(order).narrow(1, 0, count);
  }
  at::Tensor chosen = at::empty({scores.size(0), count}, at::kLong);
  const at::Tensor rows = scores.contiguous();
  if (count > 0 && rows.scalar_type() == at::kDouble) choose_rows<double>(rows, chosen);
  if (count > 0 && rows.scalar_type() == at::kFloat) choose_rows<float>(rows, chosen);
  return chosen;
}

Routing route(const at::Tensor& logits, const at::Tensor& selection_bias,
              const model::MixtureOfExperts& moe, const std::optional<RandomRows>& random,
              const at::Tensor& given) {
  const auto choose = [&](const at::Tensor& scores) {
    if (given.defined()) return given;
    return choose_experts(logits, scores, selection_bias, moe, random.has_value());
  };
  switch (moe.score) {
    case model::RouterScore::kSparseMixer: {
      Routing routing = sparse_mixer(logits, moe, random);
      routing.weights = normalized(routing.weights, moe);
      return routing;
    }
    case model::RouterScore::kTopKSoftmax: {
      const at::Tensor experts = choose(logits);
      const at::Tensor weights = at::softmax(logits.gather(1, experts), -1);
      return {normalized(weights, moe), experts, at::softmax(logits, -1)};
    }
    case model::RouterScore::kSoftmax: {
      const at::Tensor scores = at::softmax(logits, -1);
      const at::Tensor experts = choose(scores);
      return {normalized(scores.gather(1, experts), moe), experts, scores};
    }
    case model::RouterScore::kSqrtSoftplus:
    case model::RouterScore::kSigmoid: {
      const bool sigmoid = moe.score == model::RouterScore::kSigmoid;
      const at::Tensor scores = sigmoid ? at::sigmoid(logits) : at::softplus(logits).sqrt();
      const at::Tensor experts = choose(scores);
      return {normalized(scores.gather(1, experts), moe), experts,
              scores / (scores.sum(-1, /*keepdim=*/true) + 1e-20)};
    }
  }
  return {};
}

Routing within_capacity(const Routing& routing, int64_t num_experts, int64_t capacity,
                        model::TokenDropPolicy policy) {
  at::Tensor experts = routing.experts.cpu().contiguous().clone();
  const at::Tensor weights = routing.weights.detach().cpu().to(at::kDouble).contiguous();
  int64_t* expert = experts.data_ptr<int64_t>();
  std::vector<std::vector<int64_t>> choices(num_experts);
  for (int64_t c = 0; c < experts.numel(); ++c) {
    if (expert[c] >= 0 && expert[c] < num_experts) choices[expert[c]].push_back(c);
  }
  const bool by_weight = policy == model::TokenDropPolicy::kProbs;
  for (auto& own : choices)
    drop_overflow(own, capacity, by_weight ? weights.data_ptr<double>() : nullptr, expert);
  Routing kept = routing;
  kept.experts = experts.to(routing.experts.device());
  kept.weights = routing.weights * kept.experts.ge(0).to(routing.weights.scalar_type());
  return kept;
}

}  // namespace qianli::ops
