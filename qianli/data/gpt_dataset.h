// Samples of a pretraining corpus in Megatron's order, and mixtures of corpora.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/data/blend.h"
#include "qianli/data/gpt_order.h"
#include "qianli/data/samples.h"
#include "qianli/formats/indexed_dataset.h"

namespace qianli::data {

// What all corpora of a run have in common.
struct GptDatasetOptions {
  int64_t sequence_length = 0;
  uint32_t seed = 1234;
  bool drop_last_partial = true;                  // validation splits only; training always drops
  OrderedJson tokenizer = OrderedJson::object();  // named in the cache's description
  fs::path cache_folder;                          // empty: orders are not kept
};

// One split of one corpus.
class GptDataset : public SampleSet {
 public:
  // `split_text` absent: the corpus belongs to `split` alone. `num_samples` absent: one epoch.
  // DataError where the split holds no documents or no tokens.
  static std::shared_ptr<const GptDataset> open(const fs::path& prefix, Split split,
                                                std::optional<std::string> split_text,
                                                std::optional<int64_t> num_samples,
                                                const GptDatasetOptions& options);

  int64_t size() const override { return order_.size(); }
  int64_t sample_length() const override { return sequence_length_ + 1; }
  void read(int64_t index, std::span<int64_t> out) const override;
  std::string fingerprint() const override;
  std::string origin(int64_t) const override { return prefix_.string(); }

  // A piece of a document inside a sample.
  struct Piece {
    int64_t sequence;
    int64_t offset;
    int64_t tokens;
  };
  std::vector<Piece> pieces(int64_t index) const;
  const GptOrder& order() const { return order_; }

 private:
  GptDataset(const fs::path& prefix, formats::IndexedDataset corpus);
  fs::path prefix_;
  formats::IndexedDataset corpus_;
  GptOrder order_;
  std::string asked_;  // which documents, in which samples
  int64_t sequence_length_ = 0;
};

// Several corpora, mixed in a fixed order.
class BlendedDataset : public SampleSet {
 public:
  BlendedDataset(std::vector<std::shared_ptr<const SampleSet>> parts, BlendOrder order);

  int64_t size() const override { return order_.size(); }
  int64_t sample_length() const override { return parts_[0]->sample_length(); }
  void read(int64_t index, std::span<int64_t> out) const override;
  std::string fingerprint() const override;
  std::string origin(int64_t index) const override;
  const BlendOrder& order() const { return order_; }

 private:
  std::pair<const SampleSet*, int64_t> locate(int64_t index) const;
  std::vector<std::shared_ptr<const SampleSet>> parts_;
  BlendOrder order_;
};

// A split of one corpus or of a mixture, `num_samples` large (absent: one epoch of everything).
// Weighted corpora (a single one with a weight too) are prepared 0.5 % larger than their share, as
// in the reference; unweighted ones give one epoch each.
std::shared_ptr<const SampleSet> open_blend(std::span<const WeightedPath> corpora, Split split,
                                            const std::optional<std::string>& split_text,
                                            std::optional<int64_t> num_samples,
                                            const GptDatasetOptions& options);

}  // namespace qianli::data
