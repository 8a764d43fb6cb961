// What is in a corpus, and how the model will see a sample of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/data/batch.h"
#include "qianli/formats/indexed_dataset.h"
#include "qianli/text/tokenizer.h"

namespace qianli::data {

// Sequences of [low, high) tokens.
struct LengthBin {
  int64_t low = 0;
  int64_t high = 0;
  int64_t sequences = 0;
};

struct CorpusSummary {
  std::string dtype;
  int64_t documents = 0;
  int64_t sequences = 0;
  int64_t tokens = 0;
  int32_t shortest = 0;
  int32_t longest = 0;
  std::vector<LengthBin> lengths;  // bins of doubling width, without the empty ones at both ends
};
CorpusSummary summarise(const formats::IndexedDataset& corpus);

OrderedJson to_json(const CorpusSummary& summary);
std::string to_text(const CorpusSummary& summary);

// A batch of one row: tokens, labels, loss mask, positions, segment ends, and the decoded tokens
// where a tokenizer is given.
OrderedJson sample_to_json(const Batch& sample, const text::Tokenizer* tokenizer);
// The row as text for a terminal: tokens at positions without loss dimmed (with `colour`) or in
// brackets, "│" after each end of a document or segment.
std::string sample_to_text(const Batch& sample, const text::Tokenizer* tokenizer,
                           std::optional<int64_t> eod, bool colour);

}  // namespace qianli::data
