#include "qianli/data/instruction_batches.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/data/digest.h"
#include "qianli/text/chat/encode_turns.h"

namespace qianli::data {
namespace {

using text::chat::kIgnored;

// That the model is given: the last one is only a label.
int64_t inputs_of(int32_t stored) { return std::max(stored - 1, 1); }

// A token that counts nowhere.
void append_filler(Batch& batch) {
  batch.tokens.push_back(0);
  batch.labels.push_back(0);
  batch.loss_mask.push_back(0.0F);
  batch.positions.push_back(0);
  batch.segment_ends.push_back(static_cast<int64_t>(batch.tokens.size()));
}

}  // namespace

InstructionBatches::InstructionBatches(std::shared_ptr<const InstructionDataset> samples,
                                       BatchLayout layout, InstructionBatchOptions options)
    : samples_(std::move(samples)), layout_(layout), options_(std::move(options)) {
  check_layout(layout_);
  const auto& stored = samples_->corpus("input_ids").lengths();
  std::vector<int32_t> usable, lengths;
  for (int64_t i = 0; i < samples_->size(); ++i) {
    const auto sample = static_cast<int32_t>(samples_->sample(i));
    const int64_t inputs = inputs_of(stored[static_cast<size_t>(sample)]);
    if (inputs > options_.rows.capacity) {
      ++summary_.too_long;
      continue;
    }
    usable.push_back(sample);
    lengths.push_back(static_cast<int32_t>(inputs));
    summary_.tokens += inputs;
  }
  summary_.samples = std::ssize(usable);
  if (usable.empty()) {
    throw DataError("data",
                    fmt::format("expected samples of at most {} tokens, got none: {} are longer",
                                options_.rows.capacity, summary_.too_long),
                    "raise data.sequence_length, or cut them: data.truncation=two-sided");
  }
  order_ = order_rows(usable, lengths, options_.rows, options_.wanted);
  summary_.rows = order_.epoch_ends.empty() ? 0 : order_.epoch_ends.front();
  const int64_t batch = layout_.global_batch_size;
  steps_ = options_.steps.value_or((order_.rows() + batch - 1) / batch);
  const std::string asked = fmt::format("{} {} {}", samples_->fingerprint(), options_.rows.capacity,
                                        options_.end_of_sample.value_or(-1));
  const std::string order = fmt::format("{} {} {} {}", static_cast<int>(options_.rows.packing),
                                        options_.rows.seed, options_.rows.shuffle, batch);
  fingerprint_ = xxh3_hex(asked) + "-" + xxh3_hex(order);
}

int64_t InstructionBatches::row_tokens(int64_t row) const {
  const auto& stored = samples_->corpus("input_ids").lengths();
  int64_t tokens = 0;
  for (const int32_t sample : order_.row(row))
    tokens += inputs_of(stored[static_cast<size_t>(sample)]);
  return tokens;
}

BatchSource::StepSize InstructionBatches::step_size() const {
  const auto rows = static_cast<double>(std::max<int64_t>(summary_.rows, 1));
  const double mean = static_cast<double>(summary_.tokens) / static_cast<double>(summary_.samples);
  return {.tokens = static_cast<double>(summary_.tokens) / rows *
                    static_cast<double>(layout_.global_batch_size),
          .sequence_length = std::max<int64_t>(1, std::llround(mean))};
}

std::optional<double> InstructionBatches::epochs_after(int64_t steps) const {
  return order_.epochs_of(std::min(steps * layout_.global_batch_size, order_.rows()));
}

std::vector<InstructionBatches::RowNumbers> InstructionBatches::rows_of(int64_t step) const {
  const int64_t first = step * layout_.global_batch_size,
                end = std::min(first + layout_.global_batch_size, order_.rows());
  if (options_.micro_batch_tokens > 0) return rows_by_tokens(first, end);
  const int64_t block = layout_.micro_batch_size * layout_.data_parallel_size;
  std::vector<RowNumbers> microbatches;
  for (int64_t begin = first; begin < first + layout_.global_batch_size; begin += block) {
    auto& rows = microbatches.emplace_back();
    const int64_t own = begin + layout_.data_parallel_rank * layout_.micro_batch_size;
    for (int64_t row = own; row < std::min(own + layout_.micro_batch_size, end); ++row)
      rows.push_back(row);
  }
  return microbatches;
}

std::vector<InstructionBatches::RowNumbers> InstructionBatches::rows_by_tokens(int64_t first,
                                                                               int64_t end) const {
  std::vector<int64_t> lengths;
  for (int64_t row = first; row < end; ++row) lengths.push_back(row_tokens(row));
  const auto dealt = split_by_tokens(lengths, options_.micro_batch_tokens,
                                     layout_.data_parallel_size, options_.microbatch_multiple);
  std::vector<RowNumbers> microbatches;
  for (auto at = static_cast<size_t>(layout_.data_parallel_rank); at < dealt.size();
       at += static_cast<size_t>(layout_.data_parallel_size)) {
    auto& rows = microbatches.emplace_back(dealt[at]);
    for (int64_t& row : rows) row += first;
    std::ranges::sort(rows);
  }
  return microbatches;
}

std::vector<Batch> InstructionBatches::microbatches(int64_t step) const {
  if (step < 0 || step >= steps_) {
    throw DataError("data", fmt::format("expected a step in [0, {}), got {}", steps_, step),
                    "ask for fewer steps or evaluation batches");
  }
  std::vector<Batch> batches;
  for (const RowNumbers& rows : rows_of(step))
    batches.push_back(rank_part(batch_of(rows), layout_));
  return batches;
}

Batch InstructionBatches::batch_of(const RowNumbers& rows) const {
  Batch batch{.sequences = 1};
  for (const int64_t row : rows) {
    for (const int32_t sample : order_.row(row)) append(sample, batch);
  }
  const auto least = static_cast<size_t>(std::max<int64_t>(layout_.least_tokens, 1));
  if (batch.tokens.size() < least) {
    batch.sample_starts.push_back(static_cast<int64_t>(batch.tokens.size()));
    batch.sample_indices.push_back(0);
    while (batch.tokens.size() < least) append_filler(batch);
  }
  batch.sequence_length = static_cast<int64_t>(batch.tokens.size());
  return batch;
}

void InstructionBatches::append(int32_t sample, Batch& batch) const {
  const auto ids = samples_->field("input_ids", sample), labels = samples_->field("labels", sample);
  if (ids.size() != labels.size()) {
    throw DataError("data",
                    fmt::format("expected as many labels as ids in sample {}, got {} and {}",
                                sample, labels.size(), ids.size()),
                    "prepare the data again");
  }
  const auto begin = static_cast<int64_t>(batch.tokens.size());
  batch.sample_starts.push_back(begin);
  batch.sample_indices.push_back(sample);
  std::vector<int64_t> ends = {static_cast<int64_t>(ids.size())};
  const bool neat = samples_->neatly_packed();
  if (neat || options_.end_of_sample) {
    const auto mask =
        neat ? samples_->field("attention_mask", sample) : std::vector<int32_t>(ids.size(), 1);
    ends = packed_segment_ends(
        packed_positions(ids, mask, neat, options_.end_of_sample.value_or(0)), mask, neat);
  }
  size_t from = 0;
  for (const int64_t end : ends) {
    const auto count = static_cast<size_t>(end) - from;
    append_segment(std::span(ids).subspan(from, count), std::span(labels).subspan(from, count),
                   sample, batch);
    from = static_cast<size_t>(end);
  }
  if (static_cast<int64_t>(batch.tokens.size()) == begin) append_filler(batch);
}

void InstructionBatches::append_segment(std::span<const int32_t> ids,
                                        std::span<const int32_t> labels, int32_t sample,
                                        Batch& batch) const {
  size_t length = labels.size();
  while (length > 0 && labels[length - 1] == kIgnored) --length;
  if (length < 2) return;  // the first token's label is predicted by nothing
  for (size_t i = 0; i + 1 < length; ++i) {
    const bool learnt = labels[i + 1] != kIgnored;
    batch.tokens.push_back(id_of(ids[i], sample));
    // What is not learnt is the next token all the same: predictions further ahead read it.
    batch.labels.push_back(id_of(learnt ? labels[i + 1] : ids[i + 1], sample));
    batch.loss_mask.push_back(learnt ? 1.0F : 0.0F);
    batch.positions.push_back(static_cast<int64_t>(i));
  }
  batch.segment_ends.push_back(static_cast<int64_t>(batch.tokens.size()));
}

int64_t InstructionBatches::id_of(int32_t id, int32_t sample) const {
  if (id >= 0 && (options_.vocab_size == 0 || id < options_.vocab_size)) return id;
  throw DataError("data",
                  fmt::format("expected token ids in [0, {}), got {} in sample {}",
                              options_.vocab_size, id, sample),
                  "the data was made with another tokenizer, or the model's vocabulary is too "
                  "small");
}

}  // namespace qianli::data
