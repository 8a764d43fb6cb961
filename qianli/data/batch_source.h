// From samples to batches: masks, positions, segments, and the order of microbatches over ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "qianli/data/batch.h"
#include "qianli/data/context_deal.h"
#include "qianli/data/samples.h"

namespace qianli::data {

// What the masks depend on. `pad` marks positions without meaning; a pad id equal to the
// end-of-document id is ignored, or the model would never learn to end a document.
struct MaskOptions {
  std::optional<int64_t> eod;         // the end-of-document token
  std::optional<int64_t> pad;         // besides kPadding
  bool eod_mask_loss = false;         // no loss where the input token is eod
  bool reset_position_ids = false;    // positions restart after each eod
  bool reset_attention_mask = false;  // attention stays within a document (Batch::segment_ends)
  int64_t vocab_size = 0;             // tokens must be below it; 0: not checked
};

// `text`: S + 1 tokens of each row. labels = tokens shifted by one.
Batch make_batch(const SampleSet& samples, std::span<const int64_t> indices,
                 const MaskOptions& options);
// Rows [first, first + count) as a batch of their own.
Batch slice_rows(const Batch& batch, int64_t first, int64_t count);

// How a step's samples are dealt out: blocks of micro_batch_size * data_parallel_size consecutive
// samples are cut into one piece per rank (Megatron's "single" sampler).
struct BatchLayout {
  int64_t global_batch_size = 1;  // samples per step, all ranks together
  int64_t micro_batch_size = 1;
  int64_t data_parallel_rank = 0;
  int64_t data_parallel_size = 1;
  // Ranks that share the sequences of each microbatch.
  ContextOptions context;
  int64_t context_rank = 0;        // the first one whose rows this rank has,
  int64_t context_neighbours = 1;  // of so many
  int64_t depths = 0;              // of multi-token prediction
  int64_t least_tokens = 1;        // of a microbatch, so that every rank and slice has some
};

// What a task learns from, step by step. Everything it returns is a pure function of the step
// number, so resuming needs nothing else. Safe to read from many threads.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  // Steps the samples last for.
  virtual int64_t num_steps() const = 0;
  // This rank's microbatches of the step, in order, as many on every rank; its part of them where
  // ranks share sequences. DataError for a step that there is not.
  virtual std::vector<Batch> microbatches(int64_t step) const = 0;
  // Tells whether another opening gives the same samples in the same order (SampleSet).
  virtual std::string fingerprint() const = 0;

  // Of a step, on average, all ranks together.
  struct StepSize {
    double tokens = 0;
    int64_t sequence_length = 0;  // of what attends to each other
  };
  virtual StepSize step_size() const = 0;
  // Epochs done after so many steps; absent where samples have none.
  virtual std::optional<double> epochs_after(int64_t) const { return std::nullopt; }
};

// ConfigError unless global_batch_size is a multiple of micro_batch_size * data_parallel_size.
void check_layout(const BatchLayout& layout);
// A rank's part of a whole microbatch, where ranks share sequences; else the whole.
Batch rank_part(Batch batch, const BatchLayout& layout);

// Batches of samples of one length.
class SampleBatches : public BatchSource {
 public:
  SampleBatches(std::shared_ptr<const SampleSet> samples, BatchLayout layout, MaskOptions masks);

  // Whole steps.
  int64_t num_steps() const override;
  int64_t microbatches_per_step() const;
  // Samples [step * G, (step + 1) * G) as one batch.
  Batch global_batch(int64_t step) const;
  std::vector<Batch> microbatches(int64_t step) const override;
  std::string fingerprint() const override { return samples_->fingerprint(); }
  StepSize step_size() const override;

 private:
  void check_step(int64_t step) const;
  std::shared_ptr<const SampleSet> samples_;
  BatchLayout layout_;
  MaskOptions masks_;
};

// Reads the microbatches of steps first, first + 1, ... ahead of their use, in one thread.
class BatchPrefetcher {
 public:
  // Steps [first, end); at most `depth` steps wait.
  BatchPrefetcher(std::shared_ptr<const BatchSource> source, int64_t first, int64_t end,
                  int64_t depth = 2);
  ~BatchPrefetcher();
  BatchPrefetcher(const BatchPrefetcher&) = delete;
  BatchPrefetcher& operator=(const BatchPrefetcher&) = delete;

  // The next step's microbatches; throws what reading them threw.
  std::vector<Batch> next();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qianli::data
