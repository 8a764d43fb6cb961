// What the ranks of a step tell each other beside gradients and activations.
#include <ATen/ops/from_blob.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "qianli/base/stop.h"
#include "qianli/dist/agreement.h"
#include "qianli/train/step.h"

namespace qianli::train {
namespace {

std::vector<double> summed(const dist::Group& group, std::vector<double> values) {
  if (group.alone() || values.empty()) return values;
  group.all_reduce(
      at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kDouble));
  return values;
}

constexpr std::array kLosses = {
    &nn::RoutingSummary::aux_loss, &nn::RoutingSummary::sequence_aux_loss,
    &nn::RoutingSummary::device_aux_loss, &nn::RoutingSummary::communication_aux_loss,
    &nn::RoutingSummary::z_loss};

// A line for each layer: its name, its losses ("-": off), its load.
std::string text_of(const std::vector<nn::StepRouting::Layer>& layers) {
  std::string text;
  for (const auto& [name, summary] : layers) {
    text += name;
    for (const auto loss : kLosses)
      text += (summary.*loss) ? fmt::format(" {}", *(summary.*loss)) : " -";
    text += fmt::format(" {}\n", summary.max_load);
  }
  return text;
}

void read(std::istream& text, std::vector<nn::StepRouting::Layer>& layers) {
  std::string name, word;
  while (text >> name) {
    auto& layer = layers.emplace_back();
    layer.name = name;
    for (const auto loss : kLosses) {
      text >> word;
      if (word != "-") layer.summary.*loss = std::stod(word);
    }
    text >> word;
    layer.summary.max_load = std::stod(word);
  }
}

// Every layer has seen all microbatches.
nn::RoutingSummary mean_of(const std::vector<nn::StepRouting::Layer>& layers) {
  nn::RoutingSummary mean;
  for (const auto loss : kLosses) {
    double sum = 0;
    int64_t count = 0;
    for (const auto& layer : layers) {
      if (!(layer.summary.*loss)) continue;
      sum += *(layer.summary.*loss);
      ++count;
    }
    if (count > 0) mean.*loss = sum / static_cast<double>(count);
  }
  for (const auto& layer : layers) mean.max_load = std::max(mean.max_load, layer.summary.max_load);
  return mean;
}

// On the first stage that of all stages.
void join_stages(nn::StepRouting& routing, const dist::Group& pipeline) {
  if (pipeline.alone()) return;
  const auto texts = dist::every_rank(pipeline, [&] { return text_of(routing.layers); });
  if (texts.empty()) return;
  routing.layers.clear();
  for (const std::string& text : texts) {
    std::istringstream stream(text);
    read(stream, routing.layers);
  }
  routing.all = mean_of(routing.layers);
}

}  // namespace

std::vector<double> Step::sum(std::vector<double> values) const {
  return summed(ranks_.everyone, std::move(values));
}

CountedTokens Step::sum_of(CountedTokens counted) const {
  std::vector<double> values = counted.ahead;
  values.push_back(counted.next);
  values = summed(ranks_.replicas, std::move(values));
  counted.next = values.back();
  values.pop_back();
  counted.ahead = std::move(values);
  return counted;
}

void Step::sum_results(StepResult& result) const {
  // All stages have the same samples, and one of them has the loss.
  const bool counts_tokens = ranks_.counts && ranks_.stages.rank() == 0;
  std::array sums{ranks_.counts ? result.loss : 0.0,
                  counts_tokens ? static_cast<double>(result.tokens) : 0.0,
                  stop_signal() == 0 ? 0.0 : 1.0, ranks_.counts ? result.correct : 0.0};
  result.gradient_norm = optimizer_.gradient_norm(sums);
  result.loss = sums[0];
  result.tokens = static_cast<int64_t>(sums[1]);
  result.stop = sums[2] > 0;
  result.correct = sums[3];
}

void Step::finish_routing(StepResult& result) {
  const model::ModelSpec& spec = chunks_.front()->spec();
  if (spec.moe) {
    nn::sum_statistics(mixtures_, ranks_.replicas);
    nn::StepRouting routing = nn::finish_routing_step(mixtures_);
    join_stages(routing, ranks_.pipeline);
    if (!routing.layers.empty()) result.routing = std::move(routing);
  }
  if (spec.indexer) {
    const auto loss = nn::take_loss(indexers_);
    const double learning = loss ? static_cast<double>(indexers_.size()) : 0.0;
    const auto sums = sum({loss.value_or(0) * learning, learning});
    if (sums[1] > 0) result.indexer_loss = sums[0] / sums[1];
  }
}

}  // namespace qianli::train
