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

double counted_tokens(std::span<const data::Batch> microbatches) {
  double tokens = 0;
  for (const auto& batch : microbatches) {
    tokens = std::accumulate(batch.loss_mask.begin(), batch.loss_mask.end(), tokens);
  }
  return tokens;
}

bool all_finite(const at::Tensor& tensor) { return at::isfinite(tensor).all().item<bool>(); }

// The sign of a NaN says nothing.
std::string number_text(double value) { return std::isnan(value) ? "nan" : fmt::format("{}", value); }

// "3, 17, 4", of a large batch the first ones.
std::string samples_text(std::span<const int64_t> samples) {
  constexpr size_t kShown = 64;
  const std::string list = fmt::format("{}", fmt::join(samples.first(std::min(samples.size(), kShown)), ", "));
  return samples.size() <= kShown ? list : fmt::format("{} and {} more", list, samples.size() - kShown);
}

}  // namespace

nn::DecoderInput decoder_input(const data::Batch& batch, at::Device device) {
  nn::DecoderInput input{.tokens = tensor_of(batch.tokens, at::kLong, device),
                         .positions = tensor_of(batch.positions, at::kLong, device),
                         .max_position = *std::max_element(batch.positions.begin(), batch.positions.end()),
                         .segment_starts = {0}};
  if (batch.segment_ends.empty()) {
    for (int64_t row = 1; row <= batch.sequences; ++row) {
      input.segment_starts.push_back(row * batch.sequence_length);
    }
  } else {
    input.segment_starts.insert(input.segment_starts.end(), batch.segment_ends.begin(), batch.segment_ends.end());
  }
  return input;
}

Step::Step(nn::Decoder& decoder, nn::ParameterSet& parameters, optim::FlatOptimizer& optimizer,
           const config::OptimConfig& config)
    : decoder_(decoder),
      parameters_(parameters),
      optimizer_(optimizer),
      config_(config),
      device_(parameters.flat().device()) {}

StepResult Step::run(std::span<const data::Batch> microbatches) {
  const double tokens = counted_tokens(microbatches);
  StepResult result{.lr = optim::learning_rate(config_, optimizer_.updates_done())};
  at::Tensor total = at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(device_));
  optimizer_.reset_gradients();
  for (const auto& batch : microbatches) {
    const at::Tensor part = loss(batch, tokens);
    torch::autograd::backward({part}, {});
    total += part.detach();
    result.tokens += static_cast<int64_t>(batch.tokens.size());
  }
  optimizer_.finish_gradients();
  result.loss = total.item<double>();
  result.gradient_norm = optimizer_.gradient_norm();
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm)) fail_non_finite(microbatches, result);
  optimizer_.step(result.lr, result.gradient_norm);
  return result;
}

at::Tensor Step::loss(const data::Batch& batch, double tokens_in_step) {
  const at::Tensor hidden = decoder_.forward(decoder_input(batch, device_));
  const at::Tensor mask = tensor_of(batch.loss_mask, at::kFloat, device_);
  const bool exact = hidden.scalar_type() == at::kDouble;
  // A step without any counted token has loss 0, not 0/0.
  const at::Tensor weights = (exact ? mask.to(at::kDouble) : mask) / std::max(tokens_in_step, 1.0);
  return ops::linear_cross_entropy(hidden, decoder_.output_weight(), tensor_of(batch.labels, at::kLong, device_),
                                   weights)
      .loss;
}

Step::Evaluation Step::evaluate(const data::Batch& batch) {
  const at::NoGradGuard no_grad;
  const double tokens = counted_tokens({&batch, 1});
  return {.loss_sum = loss(batch, tokens).item<double>() * tokens, .tokens = tokens};
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
      fmt::format("expected finite numbers at step {}, got loss {} and gradient norm {}; first non-finite tensor: "
                  "{}; samples {}",
                  optimizer_.updates_done() + 1, number_text(result.loss), number_text(result.gradient_norm),
                  first.empty() ? "the loss itself" : first, samples_text(samples)),
      "lower optim.lr, lengthen optim.warmup_steps, or use precision=fp32");
}

}  // namespace qianli::train
