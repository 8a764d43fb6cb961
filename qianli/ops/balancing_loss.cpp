#include "qianli/ops/balancing_loss.h"

#include <ATen/ops/bincount.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class InjectLossFunction : public torch::autograd::Function<InjectLossFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& output,
                            const at::Tensor& loss, double scale) {
    context->saved_data["scale"] = scale;
    context->save_for_backward({loss});
    return output.view_as(output);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor loss = context->get_saved_variables()[0];
    return {grads[0], at::full_like(loss, context->saved_data["scale"].toDouble()), {}};
  }
};

// The segment of each token: [T] int64.
at::Tensor segment_of_token(const TokenSegments& segments, const at::Tensor& like) {
  at::Tensor own = at::empty({segments.runs.back()}, at::kLong);
  for (size_t run = 0; run + 1 < segments.runs.size(); ++run) {
    own.narrow(0, segments.runs[run], segments.runs[run + 1] - segments.runs[run])
        .fill_(static_cast<int64_t>(run) % segments.count());
  }
  return own.to(like.device());
}

// Lengths of the segments, [S, 1], in the dtype of `like`.
at::Tensor lengths_of(const TokenSegments& segments, const at::Tensor& like) {
  return at::tensor(segments.lengths, at::kLong).unsqueeze(1).to(like.options());
}

// What the losses share, for one way of cutting the tokens into segments.
struct Balance {
  at::Tensor lengths;  // [S, 1]
  at::Tensor load;     // [S, E]: E / (k s) count, mean 1
  at::Tensor share;    // [S, E]: mean probability, carries the gradient

  // Mean over the segments of the rows' sums, weighted by length.
  at::Tensor mean(const at::Tensor& per_segment) const {
    return (per_segment * lengths).sum() / lengths.sum();
  }
};

// counts: of the whole microbatch.
Balance balance_of(const at::Tensor& probabilities, const at::Tensor& counts,
                   const TokenSegments& segments, int64_t top_k) {
  const int64_t experts = probabilities.size(1);
  const at::Tensor lengths = lengths_of(segments, probabilities);
  const at::Tensor divisor = lengths.clamp_min(1.0);  // an empty segment weighs nothing
  const at::Tensor own =
      segments.count() == 1
          ? probabilities.sum(0, /*keepdim=*/true)
          : at::zeros({segments.count(), experts}, probabilities.options())
                .index_add(0, segment_of_token(segments, probabilities), probabilities);
  const double factor = static_cast<double>(experts) / static_cast<double>(top_k);
  return {lengths, counts.to(probabilities.options()) * factor / divisor,
          segments.summed(own) / divisor};
}

// [S, E] -> [S, groups, E / groups]
at::Tensor in_groups(const at::Tensor& x, int64_t groups) {
  return x.view({x.size(0), groups, -1});
}

// Of each segment, how many tokens have a choice in each group: [S, groups].
at::Tensor tokens_in_groups(const Routing& routing, const TokenSegments& segments,
                            int64_t num_experts, int64_t groups) {
  const at::Tensor group = routing.experts.floor_divide(num_experts / groups);
  at::Tensor sent = at::zeros({group.size(0), groups}, routing.probabilities.options());
  sent.scatter_(1, group.clamp_min(0), 1.0);
  return segments.summed(at::zeros({segments.count(), groups}, sent.options())
                             .index_add(0, segment_of_token(segments, sent), sent));
}

}  // namespace

TokenSegments::TokenSegments(std::vector<int64_t> starts) : runs(std::move(starts)) {
  for (size_t s = 1; s < runs.size(); ++s) lengths.push_back(runs[s] - runs[s - 1]);
}

TokenSegments::TokenSegments(std::vector<int64_t> own_runs, std::vector<int64_t> whole_lengths,
                             std::function<at::Tensor(const at::Tensor&)> sum)
    : runs(std::move(own_runs)), lengths(std::move(whole_lengths)), over_ranks(std::move(sum)) {}

TokenSegments TokenSegments::as_one() const {
  return {
      {0, runs.back()}, {std::accumulate(lengths.begin(), lengths.end(), int64_t{0})}, over_ranks};
}

at::Tensor count_choices(const at::Tensor& experts, const TokenSegments& segments,
                         int64_t num_experts) {
  at::Tensor place = experts;
  if (segments.count() > 1)
    place = place + segment_of_token(segments, experts).unsqueeze(1) * num_experts;
  return at::bincount(place.flatten(), {}, segments.count() * num_experts)
      .to(at::kDouble)
      .view({segments.count(), num_experts});
}

BalancingLosses balancing_losses(const at::Tensor& logits, const Routing& routing,
                                 const at::Tensor& own_counts, const TokenSegments& segments,
                                 const model::MixtureOfExperts& moe) {
  const at::Tensor& p = routing.probabilities;
  const bool per_sequence = moe.sequence_aux_loss_coeff != 0.0;
  const bool grouped = moe.device_aux_loss_coeff != 0.0 || moe.communication_aux_loss_coeff != 0.0;
  const at::Tensor counts = segments.summed(own_counts);
  BalancingLosses losses;
  if (moe.aux_loss_coeff != 0.0 || (grouped && !per_sequence)) {
    const Balance all =
        balance_of(p, counts.sum(0, /*keepdim=*/true), segments.as_one(), moe.top_k);
    if (moe.aux_loss_coeff != 0.0) losses.tokens = all.mean((all.load * all.share).sum(1, true));
  }
  const TokenSegments cut = per_sequence ? segments : segments.as_one();
  const at::Tensor cut_counts = per_sequence ? counts : counts.sum(0, /*keepdim=*/true);
  if (per_sequence || grouped) {
    const Balance each = balance_of(p, cut_counts, cut, moe.top_k);
    const at::Tensor group_share = in_groups(each.share, moe.num_groups).sum(2);
    if (per_sequence) losses.sequence = each.mean((each.load * each.share).sum(1, true));
    if (moe.device_aux_loss_coeff != 0.0) {
      const at::Tensor load = in_groups(each.load, moe.num_groups).mean(2);
      losses.device = each.mean((load * group_share).sum(1, true));
    }
    if (moe.communication_aux_loss_coeff != 0.0) {
      const double factor =
          static_cast<double>(moe.num_groups) / static_cast<double>(moe.topk_groups);
      const at::Tensor sent = tokens_in_groups(routing, cut, p.size(1), moe.num_groups);
      const at::Tensor load = sent * factor / each.lengths.clamp_min(1.0);
      losses.communication = each.mean((load * group_share).sum(1, true));
    }
  }
  if (moe.z_loss_coeff != 0.0) {
    const TokenSegments all = segments.as_one();
    losses.z = segments.summed(at::logsumexp(logits, {-1}).square().sum()) /
               static_cast<double>(all.lengths[0]);
  }
  return losses;
}

at::Tensor BalancingLosses::weighted_sum(const model::MixtureOfExperts& moe) const {
  at::Tensor sum;
  const auto add = [&](const at::Tensor& loss, double coefficient) {
    if (loss.defined()) sum = sum.defined() ? sum + coefficient * loss : coefficient * loss;
  };
  add(tokens, moe.aux_loss_coeff);
  add(sequence, moe.sequence_aux_loss_coeff);
  add(device, moe.device_aux_loss_coeff);
  add(communication, moe.communication_aux_loss_coeff);
  add(z, moe.z_loss_coeff);
  return sum;
}

at::Tensor inject_loss(const at::Tensor& output, const at::Tensor& loss, double scale) {
  return InjectLossFunction::apply(output, loss, scale);
}

}  // namespace qianli::ops
