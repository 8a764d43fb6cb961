// Batches of instruction data. A microbatch is one row of whole samples, one behind the other, that
// do not see each other: there is no padding, and what no label follows is left out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "qianli/data/batch_source.h"
#include "qianli/data/instruction_dataset.h"
#include "qianli/data/row_order.h"

namespace qianli::data {

struct InstructionBatchOptions {
  RowOptions rows;                  // capacity: samples with more tokens are left out
  RowsWanted wanted;                // the order goes at least so far
  std::optional<int64_t> steps;     // absent: as many as the rows of the epochs wanted are
  int64_t micro_batch_tokens = 0;   // in the place of layout.micro_batch_size; 0: off
  int64_t microbatch_multiple = 1;  // of microbatches of a step, where tokens decide
  // Where stored samples end at each such token, as plain packs do.
  std::optional<int32_t> end_of_sample;
  int64_t vocab_size = 0;  // ids must be below it
};

class InstructionBatches : public BatchSource {
 public:
  // `samples` in the order in which they are stored, of one split. Microbatches of a step have
  // layout.global_batch_size rows together; the last step of all may have fewer. ConfigError for
  // batches that do not divide, DataError where no sample is left.
  InstructionBatches(std::shared_ptr<const InstructionDataset> samples, BatchLayout layout,
                     InstructionBatchOptions options);

  int64_t num_steps() const override { return steps_; }
  std::vector<Batch> microbatches(int64_t step) const override;
  std::string fingerprint() const override { return fingerprint_; }
  StepSize step_size() const override;
  std::optional<double> epochs_after(int64_t steps) const override;

  // Of one epoch.
  struct Summary {
    int64_t samples = 0;
    int64_t too_long = 0;  // left out
    int64_t tokens = 0;    // that the model sees, of all but the ends that teach nothing
    int64_t rows = 0;      // of the first epoch
  };
  const Summary& summary() const { return summary_; }

 private:
  using RowNumbers = std::vector<int64_t>;
  // Of this rank, in the order of its microbatches; empty ones where rows are missing.
  std::vector<RowNumbers> rows_of(int64_t step) const;
  std::vector<RowNumbers> rows_by_tokens(int64_t first, int64_t end) const;
  Batch batch_of(const RowNumbers& rows) const;
  void append(int32_t sample, Batch& batch) const;
  void append_segment(std::span<const int32_t> ids, std::span<const int32_t> labels, int32_t sample,
                      Batch& batch) const;
  int64_t row_tokens(int64_t row) const;
  int64_t id_of(int32_t id, int32_t sample) const;

  std::shared_ptr<const InstructionDataset> samples_;
  BatchLayout layout_;
  InstructionBatchOptions options_;
  RowOrder order_;
  int64_t steps_ = 0;
  Summary summary_;
  std::string fingerprint_;
};

}  // namespace qianli::data
