#include "qianli/train/step.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "qianli/base/error.h"
#include "qianli/base/random.h"
#include "qianli/base/stop.h"
#include "qianli/ops/cross_entropy.h"
#include "qianli/optim/schedule.h"

namespace qianli::train {
namespace {

template <class T>
at::Tensor tensor_of(const std::vector<T>& values, at::ScalarType dtype, at::Device device) {
  // The clone owns its memory: the batch may go while the step still runs.
  return at::from_blob(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())}, dtype)
      .clone()
      .to(device);
}

bool all_finite(const at::Tensor& tensor) { return at::isfinite(tensor).all().item<bool>(); }

// The sign of a NaN says nothing.
std::string number_text(double value) {
  return std::isnan(value) ? "nan" : fmt::format("{}", value);
}

// "3, 17, 4", of a large batch the first ones.
std::string samples_text(std::span<const int64_t> samples) {
  constexpr size_t kShown = 64;
  const std::string list =
      fmt::format("{}", fmt::join(samples.first(std::min(samples.size(), kShown)), ", "));
  return samples.size() <= kShown ? list
                                  : fmt::format("{} and {} more", list, samples.size() - kShown);
}

// A function of the step and of the samples, so that resuming and other layouts draw the same.
uint64_t microbatch_key(int64_t step, const data::Batch& batch) {
  const int64_t sample = batch.sample_indices.empty() ? 0 : batch.sample_indices.front();
  return random_key(static_cast<uint64_t>(step), fmt::format("microbatch of sample {}", sample));
}

}  // namespace

std::vector<int64_t> segment_starts(const data::Batch& batch) {
  std::vector<int64_t> starts = {0};
  if (batch.segment_ends.empty()) {
    for (int64_t row = 1; row <= batch.sequences; ++row)
      starts.push_back(row * batch.sequence_length);
  } else {
    starts.insert(starts.end(), batch.segment_ends.begin(), batch.segment_ends.end());
  }
  return starts;
}

nn::DecoderInput decoder_input(const data::Batch& batch, at::Device device) {
  return {.tokens = tensor_of(batch.tokens, at::kLong, device),
          .positions = tensor_of(batch.positions, at::kLong, device),
          .max_position = *std::max_element(batch.positions.begin(), batch.positions.end()),
          .segment_starts = segment_starts(batch)};
}

CountedTokens count_tokens(std::span<const data::Batch> microbatches, int64_t depths) {
  CountedTokens counted{.next = 0, .ahead = std::vector<double>(static_cast<size_t>(depths), 0.0)};
  for (const auto& batch : microbatches) {
    counted.next = std::accumulate(batch.loss_mask.begin(), batch.loss_mask.end(), counted.next);
    const std::vector<int64_t> starts = segment_starts(batch);
    for (size_t s = 0; s + 1 < starts.size(); ++s) {
      for (int64_t depth = 0; depth < depths; ++depth) {
        const int64_t first = std::min(starts[s] + depth + 1, starts[s + 1]);
        auto& ahead = counted.ahead[static_cast<size_t>(depth)];
        ahead = std::accumulate(batch.loss_mask.begin() + first,
                                batch.loss_mask.begin() + starts[s + 1], ahead);
      }
    }
  }
  return counted;
}

Step::Step(nn::Decoder& decoder, nn::ParameterSet& parameters, optim::FlatOptimizer& optimizer,
           const config::OptimConfig& config, dist::Group replicas, bool overlap)
    : decoder_(decoder),
      mixtures_(decoder.mixtures()),
      indexers_(decoder.indexers()),
      parameters_(parameters),
      optimizer_(optimizer),
      config_(config),
      replicas_(std::move(replicas)),
      overlap_(overlap && !replicas_.alone()),
      device_(parameters.flat().device()) {}

StepResult Step::run(std::span<const data::Batch> microbatches) {
  const CountedTokens counted = sum_of(count_tokens(microbatches, decoder_.spec().mtp.num_layers));
  StepResult result{.lr = optim::learning_rate(config_, optimizer_.updates_done())};
  at::Tensor total = at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(device_));
  optimizer_.reset_gradients();
  for (const auto& batch : microbatches) {
    nn::DecoderInput input = decoder_input(batch, device_);
    input.training = true;
    input.auxiliary_loss_scale =
        1.0 / static_cast<double>(static_cast<int64_t>(microbatches.size()) * replicas_.size());
    input.random_key = microbatch_key(optimizer_.updates_done(), batch);
    if (overlap_ && &batch == &microbatches.back()) {
      input.after_backward = [this](int64_t layer) { optimizer_.gradients_are_final(layer); };
    }
    const at::Tensor part = loss(batch, input, counted);
    torch::autograd::backward({part}, {});
    total += part.detach();
    result.tokens += static_cast<int64_t>(batch.tokens.size());
  }
  optimizer_.finish_gradients();
  result.loss = total.item<double>();
  sum_results(result);
  result.gradient_norm = optimizer_.gradient_norm();
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm))
    fail_non_finite(microbatches, result);
  optimizer_.step(result.lr, result.gradient_norm);
  if (!mixtures_.empty()) {
    nn::sum_statistics(mixtures_, replicas_);
    result.routing = nn::finish_routing_step(mixtures_);
  }
  if (const auto loss = nn::take_loss(indexers_)) {
    result.indexer_loss = sum({*loss})[0] / static_cast<double>(replicas_.size());
  }
  return result;
}

std::vector<double> Step::sum(std::vector<double> values) const {
  if (replicas_.alone() || values.empty()) return values;
  const at::Tensor tensor = tensor_of(values, at::kDouble, at::kCPU);
  replicas_.all_reduce(tensor);
  return {tensor.const_data_ptr<double>(), tensor.const_data_ptr<double>() + values.size()};
}

CountedTokens Step::sum_of(CountedTokens counted) const {
  std::vector<double> values = counted.ahead;
  values.push_back(counted.next);
  values = sum(std::move(values));
  counted.next = values.back();
  values.pop_back();
  counted.ahead = std::move(values);
  return counted;
}

void Step::sum_results(StepResult& result) const {
  const auto sums =
      sum({result.loss, static_cast<double>(result.tokens), stop_signal() == 0 ? 0.0 : 1.0});
  result.loss = sums[0];
  result.tokens = static_cast<int64_t>(sums[1]);
  result.stop = sums[2] > 0;
}

at::Tensor Step::loss(const data::Batch& batch, const nn::DecoderInput& input,
                      const CountedTokens& counted) {
  const at::Tensor mask = tensor_of(batch.loss_mask, at::kFloat, device_);
  // A step without any counted token has loss 0, not 0/0.
  const auto weights = [&](const at::Tensor& counts, double tokens) {
    return counts.to(parameters_.flat().scalar_type() == at::kDouble ? at::kDouble : at::kFloat) /
           std::max(tokens, 1.0);
  };
  const model::MultiTokenPrediction& ahead = decoder_.spec().mtp;
  std::vector<at::Tensor> ahead_weights;
  for (size_t depth = 0; depth < counted.ahead.size(); ++depth) {
    const at::Tensor shifted =
        nn::shifted_within_segments(mask, input.segment_starts, static_cast<int64_t>(depth) + 1);
    ahead_weights.push_back(weights(shifted, counted.ahead[depth]) *
                            (ahead.loss_scaling_factor / static_cast<double>(ahead.num_layers)));
  }
  return decoder_.loss(input, tensor_of(batch.labels, at::kLong, device_),
                       weights(mask, counted.next), ahead_weights);
}

Step::Evaluation Step::evaluate(const data::Batch& batch) {
  const at::NoGradGuard no_grad;
  const double tokens = count_tokens({&batch, 1}, 0).next;
  const nn::DecoderInput input = decoder_input(batch, device_);
  return {.loss_sum = loss(batch, input, {.next = tokens}).item<double>() * tokens,
          .tokens = tokens};
}

void Step::fail_non_finite(std::span<const data::Batch> microbatches, const StepResult& result) {
  std::string first;
  std::vector<int64_t> samples;
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size() && first.empty(); ++i) {
    if (!all_finite(parameters_.at(i).value())) first = "parameter " + parameters_.entry(i).name;
  }
  for (const auto& batch : microbatches) {
    if (!first.empty()) break;
    decoder_.observe([&](const std::string& name, const at::Tensor& value) {
      if (first.empty() && !all_finite(value)) first = "activation " + name;
    });
    decoder_.forward(decoder_input(batch, device_));
    decoder_.observe({});
    if (!first.empty()) samples = batch.sample_indices;
  }
  for (size_t i = 0; i < parameters_.size() && first.empty(); ++i) {
    if (parameters_.entry(i).buffer) continue;
    if (!all_finite(parameters_.at(i).grad())) first = "gradient of " + parameters_.entry(i).name;
  }
  if (samples.empty()) {  // no forward pass shows it: it may be of any sample of the step
    for (const auto& batch : microbatches) {
      samples.insert(samples.end(), batch.sample_indices.begin(), batch.sample_indices.end());
    }
  }
  throw NonFiniteError(
      "train",
      fmt::format("expected finite numbers at step {}, got loss {} and gradient norm {}; first "
                  "non-finite tensor: "
                  "{}; samples {}",
                  optimizer_.updates_done() + 1, number_text(result.loss),
                  number_text(result.gradient_norm), first.empty() ? "the loss itself" : first,
                  samples_text(samples)),
      "lower optim.lr, lengthen optim.warmup_steps, or use precision=fp32");
}

}  // namespace qianli::train
