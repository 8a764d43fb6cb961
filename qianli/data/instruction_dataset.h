// Prepared instruction data as training reads them: a split of the samples, in the order of
// MindSpeed-LLM's DecoderPackedMTFDataset.
//
// It yields samples as they are stored: sequences of ids and labels of any length, labels not
// shifted (-100 where nothing is learnt). Shifting, cutting, padding and putting them into a Batch
// is up to whoever trains.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qianli/data/gpt_order.h"
#include "qianli/formats/indexed_dataset.h"

namespace qianli::data {

struct InstructionDatasetOptions {
  Split split = Split::kTrain;
  std::optional<std::string> split_text;  // absent: all samples belong to `split`
  std::optional<int64_t> num_samples;     // wanted; absent: one epoch
  uint32_t seed = 1234;
  bool shuffle = true;  // each epoch by itself
};

// Safe to read from many threads.
class InstructionDataset {
 public:
  // `prefix` as it was given to `data prepare`. Fields are found by their files' names. DataError
  // where there are none, where they do not have equally many samples, where the split is empty, or
  // where files have changed since they were prepared.
  static InstructionDataset open(const fs::path& prefix, const InstructionDatasetOptions& options);
  // Whether there are files of this prefix.
  static bool exists(const fs::path& prefix);

  // "attention_mask", "input_ids", "labels"; sorted.
  const std::vector<std::string>& fields() const { return fields_; }
  bool has(const std::string& field) const;
  // Positions of the order: whole epochs, as many as the wanted samples need.
  int64_t size() const { return static_cast<int64_t>(order_.size()); }
  // The stored sample at a position: a function of the files, the options and the position alone.
  int64_t sample(int64_t position) const;
  // A field of a stored sample. DataError for a field that there is not.
  std::vector<int32_t> field(const std::string& name, int64_t sample) const;
  // Samples stored, of all splits.
  int64_t stored() const { return static_cast<int64_t>(corpora_[0].size()); }
  const formats::IndexedDataset& corpus(const std::string& field) const;
  // Of packed data the length of all; else absent.
  std::optional<int64_t> packed_length() const { return packed_length_; }
  bool neatly_packed() const { return neatly_packed_; }
  // Tells whether another opening gives the same samples in the same order.
  std::string fingerprint() const;

 private:
  fs::path prefix_;
  std::vector<std::string> fields_;
  std::vector<formats::IndexedDataset> corpora_;  // of each field
  std::vector<int32_t> order_;
  std::optional<int64_t> packed_length_;
  bool neatly_packed_ = false;
};

// Positions within the samples of a packed sequence, by its attention mask where the numbers of a
// neat pack are in it (0 in padding), and by its ends of text otherwise.
std::vector<int64_t> packed_positions(const std::vector<int32_t>& ids,
                                      const std::vector<int32_t>& mask, bool neat, int32_t eos);
// Ends of the attention segments of a packed sequence: of each sample, and of the padding, which is
// one segment.
std::vector<int64_t> packed_segment_ends(const std::vector<int64_t>& positions,
                                         const std::vector<int32_t>& mask, bool neat);

}  // namespace qianli::data
