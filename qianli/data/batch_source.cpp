#include "qianli/data/batch_source.h"

#include <fmt/core.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "qianli/base/error.h"

namespace qianli::data {
namespace {

class RowMaker {
 public:
  RowMaker(const SampleSet& samples, const MaskOptions& options)
      : samples_(samples), options_(options), text_(static_cast<size_t>(samples.sample_length())) {
    if (options.pad != options.eod) pad_ = options.pad;
  }

  void append(int64_t index, Batch& batch) {
    samples_.read(index, text_);
    const size_t length = text_.size() - 1;
    int64_t position = 0;
    for (size_t i = 0; i < length; ++i) {
      const int64_t token = text_[i], label = text_[i + 1];
      const bool is_eod = options_.eod && token == *options_.eod;
      const bool counts = !is_padding(label) && !(is_eod && options_.eod_mask_loss);
      batch.tokens.push_back(value(token, index));
      batch.labels.push_back(value(label, index));
      batch.loss_mask.push_back(counts ? 1.0f : 0.0f);
      batch.positions.push_back(position);
      position = is_eod && options_.reset_position_ids ? 0 : position + 1;
      const bool ends = (is_eod && options_.reset_attention_mask) || i + 1 == length;
      if (ends && options_.reset_attention_mask) {
        batch.segment_ends.push_back(static_cast<int64_t>(batch.tokens.size()));
      }
    }
    batch.sample_indices.push_back(index);
    ++batch.sequences;
  }

 private:
  bool is_padding(int64_t token) const { return token == kPadding || (pad_ && token == *pad_); }

  // Padding never reaches an embedding: it becomes token 0.
  int64_t value(int64_t token, int64_t index) const {
    if (is_padding(token)) return 0;
    if (token < 0 || (options_.vocab_size > 0 && token >= options_.vocab_size)) {
      throw DataError(
          "data",
          fmt::format("expected token ids in [0, {}), got {} in sample {} of {}",
                      options_.vocab_size, token, index, samples_.origin(index)),
          "the data was made with another tokenizer, or the model's vocabulary is too small");
    }
    return token;
  }

  const SampleSet& samples_;
  const MaskOptions& options_;
  std::optional<int64_t> pad_;
  std::vector<int64_t> text_;
};

template <class T>
std::vector<T> rows_of(const std::vector<T>& values, int64_t width, int64_t first, int64_t count) {
  const auto begin = values.begin() + first * width;
  return std::vector<T>(begin, begin + count * width);
}

}  // namespace

Batch make_batch(const SampleSet& samples, std::span<const int64_t> indices,
                 const MaskOptions& options) {
  Batch batch;
  batch.sequence_length = samples.sample_length() - 1;
  const size_t positions = indices.size() * static_cast<size_t>(batch.sequence_length);
  batch.tokens.reserve(positions);
  batch.labels.reserve(positions);
  batch.loss_mask.reserve(positions);
  batch.positions.reserve(positions);
  RowMaker maker(samples, options);
  for (const int64_t index : indices) maker.append(index, batch);
  return batch;
}

Batch slice_rows(const Batch& batch, int64_t first, int64_t count) {
  const int64_t width = batch.sequence_length;
  Batch part;
  part.sequences = count;
  part.sequence_length = width;
  part.tokens = rows_of(batch.tokens, width, first, count);
  part.labels = rows_of(batch.labels, width, first, count);
  part.loss_mask = rows_of(batch.loss_mask, width, first, count);
  part.positions = rows_of(batch.positions, width, first, count);
  part.sample_indices = rows_of(batch.sample_indices, 1, first, count);
  for (const int64_t end : batch.segment_ends) {
    if (end > first * width && end <= (first + count) * width) {
      part.segment_ends.push_back(end - first * width);
    }
  }
  return part;
}

void check_layout(const BatchLayout& layout) {
  const int64_t block = layout.micro_batch_size * layout.data_parallel_size;
  if (layout.micro_batch_size >= 1 && block >= 1 && layout.global_batch_size >= 1 &&
      layout.global_batch_size % block == 0)
    return;
  throw ConfigError(
      "train",
      fmt::format(
          "expected train.global_batch_size to be a multiple of train.micro_batch_size ({}) "
          "x data-parallel ranks ({}), got {}",
          layout.micro_batch_size, layout.data_parallel_size, layout.global_batch_size),
      fmt::format("use {}",
                  std::max<int64_t>(1, layout.global_batch_size / std::max<int64_t>(1, block)) *
                      std::max<int64_t>(1, block)));
}

Batch rank_part(Batch batch, const BatchLayout& layout) {
  if (layout.context.size == 1) return batch;
  return deal_out(batch, layout.context, layout.context_rank, layout.depths,
                  layout.context_neighbours);
}

SampleBatches::SampleBatches(std::shared_ptr<const SampleSet> samples, BatchLayout layout,
                             MaskOptions masks)
    : samples_(std::move(samples)), layout_(layout), masks_(masks) {
  check_layout(layout_);
}

int64_t SampleBatches::num_steps() const { return samples_->size() / layout_.global_batch_size; }

int64_t SampleBatches::microbatches_per_step() const {
  return layout_.global_batch_size / (layout_.micro_batch_size * layout_.data_parallel_size);
}

BatchSource::StepSize SampleBatches::step_size() const {
  const int64_t length = samples_->sample_length() - 1;
  return {static_cast<double>(layout_.global_batch_size * length), length};
}

void SampleBatches::check_step(int64_t step) const {
  if (step >= 0 && step < num_steps()) return;
  throw DataError(
      "data",
      fmt::format("expected a step in [0, {}), got {}: there are {} samples for batches of {}",
                  num_steps(), step, samples_->size(), layout_.global_batch_size),
      "give more data, or ask for fewer steps or evaluation batches");
}

Batch SampleBatches::global_batch(int64_t step) const {
  check_step(step);
  std::vector<int64_t> indices(static_cast<size_t>(layout_.global_batch_size));
  std::iota(indices.begin(), indices.end(), step * layout_.global_batch_size);
  return make_batch(*samples_, indices, masks_);
}

std::vector<Batch> SampleBatches::microbatches(int64_t step) const {
  check_step(step);
  std::vector<Batch> batches;
  std::vector<int64_t> indices(static_cast<size_t>(layout_.micro_batch_size));
  for (int64_t k = 0; k < microbatches_per_step(); ++k) {
    const int64_t block = k * layout_.data_parallel_size + layout_.data_parallel_rank;
    std::iota(indices.begin(), indices.end(),
              step * layout_.global_batch_size + block * layout_.micro_batch_size);
    batches.push_back(rank_part(make_batch(*samples_, indices, masks_), layout_));
  }
  return batches;
}

struct BatchPrefetcher::State {
  std::shared_ptr<const BatchSource> source;
  int64_t next_step;
  int64_t end;
  size_t depth;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::vector<Batch>> ready;
  std::exception_ptr failure;
  bool stopping = false;
  std::thread thread;

  void work() {
    try {
      while (next_step < end) {
        auto batches = source->microbatches(next_step++);
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return stopping || ready.size() < depth; });
        if (stopping) return;
        ready.push_back(std::move(batches));
        changed.notify_all();
      }
      throw std::logic_error("no steps are left to read");
    } catch (...) {
      std::lock_guard lock(mutex);
      failure = std::current_exception();
      changed.notify_all();
    }
  }
};

BatchPrefetcher::BatchPrefetcher(std::shared_ptr<const BatchSource> source, int64_t first,
                                 int64_t end, int64_t depth)
    : state_(new State{.source = std::move(source),
                       .next_step = first,
                       .end = end,
                       .depth = static_cast<size_t>(std::max<int64_t>(1, depth))}) {
  state_->thread = std::thread([state = state_.get()] { state->work(); });
}

BatchPrefetcher::~BatchPrefetcher() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
}

std::vector<Batch> BatchPrefetcher::next() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return !state_->ready.empty() || state_->failure; });
  if (state_->ready.empty()) std::rethrow_exception(state_->failure);
  auto batches = std::move(state_->ready.front());
  state_->ready.pop_front();
  lock.unlock();
  state_->changed.notify_all();
  return batches;
}

}  // namespace qianli::data
