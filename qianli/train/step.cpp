#include "qianli/train/step.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "qianli/base/random.h"
#include "qianli/base/trace.h"
#include "qianli/data/context_deal.h"
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

// Two microbatches of equal numbers make tensors of equal shapes.
int64_t kind_of(const data::Batch& batch) {
  const std::vector<int64_t> starts = data::segment_starts(batch);
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < starts.size(); ++s)
    longest = std::max(longest, starts[s + 1] - starts[s]);
  return (static_cast<int64_t>(batch.tokens.size()) << 32) + longest;
}

// A function of the step and of the samples, so that resuming and other layouts draw the same.
uint64_t microbatch_key(int64_t step, const data::Batch& batch) {
  const int64_t sample = batch.sample_indices.empty() ? 0 : batch.sample_indices.front();
  return random_key(static_cast<uint64_t>(step), fmt::format("microbatch of sample {}", sample));
}

// Passes over equally many microbatches use parameters in the same order.
uint64_t pass_number(size_t microbatches, bool forward_only) {
  return 2 * static_cast<uint64_t>(microbatches) + (forward_only ? 1 : 0);
}

}  // namespace

nn::DecoderInput decoder_input(const data::Batch& batch, at::Device device) {
  nn::DecoderInput input{
      .tokens = tensor_of(batch.tokens, at::kLong, device),
      .positions = tensor_of(batch.positions, at::kLong, device),
      .max_position = batch.context || batch.slice
                          ? batch.max_position
                          : *std::max_element(batch.positions.begin(), batch.positions.end()),
      .segment_starts = data::segment_starts(batch),
      .context = batch.context,
      .slice = batch.slice};
  for (const data::Ahead& ahead : batch.ahead) {
    input.ahead.push_back(
        {tensor_of(ahead.tokens, at::kLong, device), tensor_of(ahead.labels, at::kLong, device)});
  }
  return input;
}

CountedTokens count_tokens(std::span<const data::Batch> microbatches, int64_t depths) {
  CountedTokens counted{.next = 0, .ahead = std::vector<double>(static_cast<size_t>(depths), 0.0)};
  for (const auto& batch : microbatches) {
    if (!batch.context) {
      const auto own = data::counted_tokens(batch, depths);
      counted.next += own.front();
      for (size_t depth = 0; depth < counted.ahead.size(); ++depth)
        counted.ahead[depth] += own[depth + 1];
      continue;
    }
    counted.next = std::accumulate(batch.loss_mask.begin(), batch.loss_mask.end(), counted.next);
    for (size_t depth = 0; depth < counted.ahead.size(); ++depth) {
      const auto& mask = batch.ahead[depth].loss_mask;
      counted.ahead[depth] = std::accumulate(mask.begin(), mask.end(), counted.ahead[depth]);
    }
  }
  return counted;
}

Step::Step(std::vector<nn::Decoder*> chunks, nn::ParameterSet& parameters,
           optim::FlatOptimizer& optimizer, StepOptions options, StepRanks ranks)
    : chunks_(std::move(chunks)),
      parameters_(parameters),
      optimizer_(optimizer),
      options_(std::move(options)),
      ranks_(std::move(ranks)),
      device_(parameters.options().device()),
      pipeline_(ranks_.stages, device_) {
  for (const nn::Decoder* chunk : chunks_) {
    nn::Units& used = units_.emplace_back();
    for (const nn::Units& units : chunk->units())
      used.insert(used.end(), units.begin(), units.end());
    const auto mixtures = chunk->mixtures();
    mixtures_.insert(mixtures_.end(), mixtures.begin(), mixtures.end());
    const auto indexers = chunk->indexers();
    indexers_.insert(indexers_.end(), indexers.begin(), indexers.end());
  }
}

StepResult Step::run(std::span<const data::Batch> microbatches) {
  const CountedTokens counted =
      sum_of(count_tokens(microbatches, chunks_.front()->spec().mtp.num_layers));
  const std::vector<CountedTokens> divisors = this->divisors(microbatches, counted);
  StepResult result{.lr = optim::learning_rate(options_.optim, optimizer_.updates_done()),
                    .labels = counted.next};
  const Totals totals = no_totals();
  optimizer_.reset_gradients();
  optimizer_.gathering().begin(pass_number(microbatches.size(), /*forward_only=*/false));
  passes_.clear();
  complete_.assign(chunks_.size(), false);
  slice_keys_.clear();
  const auto part = [&](int32_t m, int32_t slice) {
    return slice_of(microbatches[static_cast<size_t>(m)], slice);
  };
  pipeline_.run(
      schedule(microbatches.size(), /*forward_only=*/false),
      {.forward =
           [&](const Unit& unit, const Tensors& before) {
             const data::Batch batch = part(unit.microbatch, unit.slice);
             const nn::DecoderInput input = training_input(unit, batch, microbatches.size());
             return forward(unit, batch, input, divisors[static_cast<size_t>(unit.microbatch)],
                            before, totals);
           },
       .went_back = [this](const Unit& unit) { pass_of(unit).end_backward(); },
       .gradients_complete = [this](int32_t chunk) { chunk_is_complete(chunk); },
       .kind = [&](int32_t m, int32_t slice) { return kind_of(part(m, slice)); },
       .released =
           [this](const Unit& unit) {
             if (unit.slice == 0) slice_keys_.erase({unit.chunk, unit.microbatch});
           }});
  {
    const trace::Span span([] { return std::string("finish gradients"); });
    optimizer_.finish_gradients();
    optimizer_.sum_gradients(ranks_.sharers, options_.shared);
  }
  result.loss = totals.loss.item<double>();
  if (totals.correct.defined()) result.correct = totals.correct.item<double>();
  for (const auto& batch : microbatches) result.tokens += static_cast<int64_t>(batch.tokens.size());
  sum_results(result);
  if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm))
    fail_non_finite(microbatches, result);
  {
    const trace::Span span([] { return std::string("optimizer"); });
    optimizer_.step(result.lr, result.gradient_norm, std::ssize(microbatches) * ranks_.samples);
  }
  finish_routing(result);
  return result;
}

Step::Evaluation Step::evaluate(std::span<const data::Batch> microbatches) {
  const Totals totals = go_forward(microbatches, [](const Unit&) {});
  const bool counts_tokens = ranks_.counts && ranks_.stages.rank() == 0;
  Evaluation part;
  if (ranks_.counts) part.loss_sum = totals.loss.item<double>();
  if (ranks_.counts && totals.correct.defined()) part.correct = totals.correct.item<double>();
  if (counts_tokens) part.tokens = count_tokens(microbatches, 0).next;
  return part;
}

Step::Totals Step::no_totals() const {
  const auto zero = [&] {
    return at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(device_));
  };
  return {.loss = zero(), .correct = options_.counts_correct ? zero() : at::Tensor()};
}

Step::Totals Step::go_forward(std::span<const data::Batch> microbatches,
                              const std::function<void(const Unit&)>& before) {
  const Totals totals = no_totals();
  optimizer_.gathering().begin(pass_number(microbatches.size(), /*forward_only=*/true));
  const auto batch_of = [&](int32_t m) -> const data::Batch& {
    return microbatches[static_cast<size_t>(m)];
  };
  pipeline_.run(schedule(microbatches.size(), /*forward_only=*/true),
                {.forward =
                     [&](const Unit& unit, const Tensors& input) {
                       before(unit);
                       const data::Batch& batch = batch_of(unit.microbatch);
                       nn::DecoderInput given = decoder_input(batch, device_);
                       given.units = std::make_shared<UnitPass>(optimizer_, nn::Units());
                       return forward(unit, batch, given, {.next = 1}, input, totals);
                     },
                 .went_back = {},
                 .gradients_complete = {},
                 .kind = [&](int32_t m, int32_t) { return kind_of(batch_of(m)); },
                 .released = {}});
  return totals;
}

const plan::Schedule& Step::schedule(size_t microbatches, bool forward_only) {
  const auto [found, is_new] = schedules_.try_emplace({microbatches, forward_only});
  if (is_new) {
    plan::ScheduleOptions wanted = options_.schedule;
    wanted.microbatches = static_cast<int64_t>(microbatches);
    wanted.forward_only = forward_only;
    if (forward_only && wanted.kind == plan::ScheduleKind::kSeq1F1B) {
      wanted.kind = plan::ScheduleKind::k1F1B;  // nothing is kept that slices would make less
      wanted.slices = 1;
    }
    if (forward_only) wanted.recompute = plan::Recompute::kNone;
    if (forward_only) wanted.merge_pairs = wanted.detach_weight_grads = false;
    found->second = plan::make_schedule(wanted);
  }
  return found->second;
}

nn::DecoderInput Step::training_input(const Unit& unit, const data::Batch& batch,
                                      size_t microbatches) {
  nn::DecoderInput input = decoder_input(batch, device_);
  input.training = true;
  // Ranks that share a microbatch have one balancing loss together.
  const int64_t sharing = batch.context ? batch.context->options().size : 1;
  input.auxiliary_loss_scale =
      static_cast<double>(sharing) /
      static_cast<double>(static_cast<int64_t>(microbatches) * ranks_.replicas.size());
  input.random_key = microbatch_key(optimizer_.updates_done(), batch);
  input.dropout = dropouts(batch);
  if (batch.slice) input.slice_keys = slice_keys(unit);
  input.units = unit_pass(unit);
  return input;
}

data::Batch Step::slice_of(const data::Batch& batch, int32_t slice) {
  if (options_.schedule.slices == 1) return batch;
  plan::SliceOptions slicing = options_.slicing;
  slicing.sequence_length = batch.sequence_length;
  const auto lengths = plan::slice_lengths(slicing);
  const int64_t begin = std::accumulate(lengths.begin(), lengths.begin() + slice, int64_t{0});
  return data::slice_of(batch, begin, begin + lengths[static_cast<size_t>(slice)],
                        chunks_.front()->spec().mtp.num_layers);
}

std::shared_ptr<nn::SliceKeys> Step::slice_keys(const Unit& unit) {
  auto& keys = slice_keys_[{unit.chunk, unit.microbatch}];
  if (!keys) keys = std::make_shared<nn::SliceKeys>();
  return keys;
}

std::shared_ptr<const nn::Dropouts> Step::dropouts(const data::Batch& batch) const {
  const DropoutOptions& o = options_.dropout;
  if (o.attention == 0 && o.hidden == 0 && o.embedding == 0 && o.noise == 0) return nullptr;
  auto dropouts = std::make_shared<nn::Dropouts>(nn::Dropouts{
      .attention = o.attention,
      .hidden = o.hidden,
      .embedding = o.embedding,
      .key = random_key(o.seed, fmt::format("dropout of step {}", optimizer_.updates_done())),
      .origins = tensor_of(data::token_origins(batch), at::kLong, device_),
      .segment_origins = data::segment_origins(batch),
      .noise = o.noise});
  if (o.noise > 0)
    dropouts->sample_lengths = tensor_of(data::sample_lengths(batch), at::kLong, device_);
  return dropouts;
}

std::shared_ptr<UnitPass> Step::unit_pass(const Unit& unit) {
  auto pass = std::make_shared<UnitPass>(
      optimizer_, unit.completes ? units_with_chunk(unit.chunk) : nn::Units());
  passes_[{unit.chunk, unit.microbatch, unit.slice}] = pass;
  return pass;
}

UnitPass& Step::pass_of(const Unit& unit) {
  return *passes_.at({unit.chunk, unit.microbatch, unit.slice});
}

Tensors Step::forward(const Unit& unit, const data::Batch& batch, const nn::DecoderInput& input,
                      const CountedTokens& divisor, const Tensors& before, const Totals& totals) {
  nn::Decoder& chunk = *chunks_[static_cast<size_t>(unit.chunk)];
  nn::Carried after = chunk.advance(input, nn::Carried::unpacked(before));
  if (!chunk.part().loss) return after.packed();
  nn::Targets targets = this->targets(batch, input, divisor);
  if (!unit.again) targets.correct = totals.correct;
  const at::Tensor loss = chunk.loss(input, std::move(after), targets);
  if (!unit.again) totals.loss.add_(loss.detach());
  return {loss};
}

std::vector<CountedTokens> Step::divisors(std::span<const data::Batch> microbatches,
                                          const CountedTokens& counted) const {
  if (!options_.means_of_microbatches)
    return std::vector<CountedTokens>(microbatches.size(), counted);
  const auto number = static_cast<double>(std::ssize(microbatches) * ranks_.samples);
  std::vector<CountedTokens> divisors;
  for (const data::Batch& batch : microbatches) {
    const std::vector<double> tokens =
        batch.context ? batch.counted : data::counted_tokens(batch, std::ssize(counted.ahead));
    CountedTokens& divisor = divisors.emplace_back();
    divisor.next = std::max(tokens.front(), 1.0) * number;
    for (size_t depth = 1; depth < tokens.size(); ++depth)
      divisor.ahead.push_back(std::max(tokens[depth], 1.0) * number);
  }
  return divisors;
}

nn::Targets Step::targets(const data::Batch& batch, const nn::DecoderInput& input,
                          const CountedTokens& divisor) const {
  const at::Tensor mask = tensor_of(batch.loss_mask, at::kFloat, device_);
  // A step without any counted token has loss 0, not 0/0.
  const auto weights = [&](const at::Tensor& counts, double tokens) {
    return counts.to(parameters_.options().dtype() == at::kDouble ? at::kDouble : at::kFloat) /
           std::max(tokens, 1.0);
  };
  const model::MultiTokenPrediction& ahead = chunks_.front()->spec().mtp;
  nn::Targets targets{.labels = tensor_of(batch.labels, at::kLong, device_),
                      .weights = weights(mask, divisor.next)};
  for (size_t depth = 0; depth < divisor.ahead.size(); ++depth) {
    const at::Tensor shifted = depth < batch.ahead.size()
                                   ? tensor_of(batch.ahead[depth].loss_mask, at::kFloat, device_)
                                   : nn::shifted_within_segments(mask, input.segment_starts,
                                                                 static_cast<int64_t>(depth) + 1);
    targets.ahead_weights.push_back(
        weights(shifted, divisor.ahead[depth]) *
        (ahead.loss_scaling_factor / static_cast<double>(ahead.num_layers)));
  }
  return targets;
}

nn::Units Step::units_with_chunk(int32_t chunk) const {
  nn::Units found;
  for (const size_t unit : units_[static_cast<size_t>(chunk)]) {
    bool is_last = true;
    for (size_t other = 0; other < units_.size(); ++other) {
      const bool uses = std::ranges::find(units_[other], unit) != units_[other].end();
      is_last = is_last && (!uses || complete_[other] || other == static_cast<size_t>(chunk));
    }
    if (is_last) found.push_back(unit);
  }
  return found;
}

void Step::chunk_is_complete(int32_t chunk) {
  complete_[static_cast<size_t>(chunk)] = true;
  optimizer_.gradients_are_final(units_with_chunk(chunk));
}

}  // namespace qianli::train
