// Where the first number of a step went wrong that is not finite.
#include <ATen/ops/isfinite.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <tuple>

#include "qianli/base/error.h"
#include "qianli/dist/agreement.h"
#include "qianli/train/step.h"

namespace qianli::train {
namespace {

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

// What was found, as a text that sorts by when the step came to it: parameters, then activations by
// microbatch and place in the model, then gradients.
enum class Phase { kParameters, kActivations, kGradients, kNone };
struct Finding {
  Phase phase = Phase::kNone;
  int32_t microbatch = 0, place = 0;
  std::string what = "the loss itself";

  bool before(const Finding& other) const {
    return std::tie(phase, microbatch, place) <
           std::tie(other.phase, other.microbatch, other.place);
  }
  std::string text() const {
    return fmt::format("{} {:08} {:08} {}", static_cast<int>(phase), microbatch, place, what);
  }
  static Finding of(const std::string& text) {
    int phase = 0, begin = 0;
    Finding finding;
    std::sscanf(text.c_str(), "%d %d %d %n", &phase, &finding.microbatch, &finding.place, &begin);
    finding.phase = static_cast<Phase>(phase);
    finding.what = text.substr(static_cast<size_t>(begin));
    return finding;
  }
};

// The earliest of all ranks'; all return it, so that they go on or end together.
Finding first_of(const dist::Group& everyone, const Finding& own) {
  if (everyone.alone()) return own;
  const auto found = dist::every_rank(everyone, [&] { return own.text(); });
  return Finding::of(
      dist::first_rank(everyone, [&] { return *std::min_element(found.begin(), found.end()); }));
}

}  // namespace

void Step::fail_non_finite(std::span<const data::Batch> microbatches, const StepResult& result) {
  const at::NoGradGuard no_grad;
  const auto stage = static_cast<int32_t>(ranks_.stages.rank());
  const auto first_parameter = [&](Phase phase, const char* what, const auto& is_bad) {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (is_bad(i))
        return Finding{phase, 0, stage, fmt::format("{} {}", what, parameters_.entry(i).name)};
    }
    return Finding();
  };
  // What this rank owns of a parameter: all ranks together look at all.
  const auto parts_finite = [&](size_t i, const auto& of) {
    const nn::FlatPlace& place = parameters_.place(i);
    const auto parts = parameters_.layout()
                           .slices_with(parameters_.region_of(i))
                           .within(place.offset, place.offset + place.count);
    return std::ranges::all_of(parts, [&](const auto& part) { return all_finite(of(part)); });
  };
  Finding found =
      first_of(ranks_.everyone, first_parameter(Phase::kParameters, "parameter", [&](size_t i) {
                 return !parts_finite(
                     i, [&](const nn::FlatRanges::Part& part) { return parameters_.values(part); });
               }));
  if (found.phase == Phase::kNone) {
    found = first_of(ranks_.everyone, Finding::of(first_bad_activation(microbatches)));
  }
  if (found.phase == Phase::kNone) {
    found = first_of(
        ranks_.everyone, first_parameter(Phase::kGradients, "gradient of", [&](size_t i) {
          return parameters_.is_trained(i) &&
                 !parts_finite(i, [&](const nn::FlatRanges::Part& part) {
                   return optimizer_.own_gradients(part);
                 });
        }));
  }
  if (found.phase != Phase::kActivations) {
    // No forward pass shows it: it may be of any sample of the step.
    std::vector<int64_t> samples;
    for (const data::Batch& batch : microbatches)
      samples.insert(samples.end(), batch.sample_indices.begin(), batch.sample_indices.end());
    found.what += "; samples " + samples_text(samples);
  }
  throw NonFiniteError(
      "train",
      fmt::format("expected finite numbers at step {}, got loss {} and gradient norm {}; first "
                  "non-finite tensor: {}",
                  optimizer_.updates_done() + 1, number_text(result.loss),
                  number_text(result.gradient_norm), found.what),
      "lower optim.lr, lengthen optim.warmup_steps, or use precision=fp32");
}

std::string Step::first_bad_activation(std::span<const data::Batch> microbatches) {
  const plan::Places places(schedule(microbatches.size(), /*forward_only=*/true));
  Finding found;
  Unit now;
  for (nn::Decoder* chunk : chunks_) {
    chunk->observe([&](const std::string& name, const at::Tensor& value) {
      const auto place = places.of(static_cast<int32_t>(ranks_.stages.rank()), now.chunk);
      const Finding here{Phase::kActivations, now.microbatch, place, "activation " + name};
      if (here.before(found) && !all_finite(value)) found = here;
    });
  }
  go_forward(microbatches, [&](const Unit& unit) { now = unit; });
  for (nn::Decoder* chunk : chunks_) chunk->observe({});
  if (found.phase != Phase::kNone) {
    const data::Batch& batch = microbatches[static_cast<size_t>(found.microbatch)];
    found.what += "; samples " + samples_text(batch.sample_indices);
  }
  return found.text();
}

}  // namespace qianli::train
