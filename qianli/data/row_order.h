// In which order training takes samples of different lengths, and which of them share a row. Pure
// arithmetic on lengths: every rank finds the same, and more epochs only add rows at the end.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace qianli::data {

enum class RowPacking {
  kNone,     // each sample is a row
  kGreedy,   // samples join a row as they come, until the next one does not fit
  kBestFit,  // a row takes the largest sample that still fits, again and again (pack_bins)
};
// none, greedy, best_fit. Throws ConfigError for another name.
RowPacking row_packing(std::string_view name);

struct RowOptions {
  RowPacking packing = RowPacking::kNone;
  int64_t capacity = 0;  // tokens of a packed row
  uint32_t seed = 1234;
  bool shuffle = true;  // each epoch by itself
};

struct RowOrder {
  std::vector<int32_t> samples;       // of all rows, one row after the other
  std::vector<int64_t> starts = {0};  // [rows + 1]: of each row among them
  std::vector<int64_t> epoch_ends;    // rows before the end of each epoch

  int64_t rows() const { return static_cast<int64_t>(starts.size()) - 1; }
  std::span<const int32_t> row(int64_t i) const {
    const auto at = static_cast<size_t>(i);
    return std::span(samples).subspan(static_cast<size_t>(starts[at]),
                                      static_cast<size_t>(starts[at + 1] - starts[at]));
  }
  // Epochs that so many rows are.
  double epochs_of(int64_t rows) const;
};

// How far the order goes: so many epochs, or whole epochs until there are so many rows.
struct RowsWanted {
  int64_t epochs = 0;
  int64_t rows = 0;
};

// `samples` are the numbers of an epoch's samples, lengths[i] the tokens of samples[i], at most the
// capacity where rows are packed. Epochs are shuffled one after the other by NumPy's stream, which
// is MindSpeed-LLM's order where each sample is a row.
RowOrder order_rows(std::span<const int32_t> samples, std::span<const int32_t> lengths,
                    const RowOptions& options, const RowsWanted& wanted);

// Rows of a step dealt out to the microbatches of `ranks` ranks, [microbatch * ranks + rank] of
// places in `lengths`: as few microbatches as hold at most `budget` tokens each (a longer row is
// alone), a multiple of `multiple` where the rows suffice, with similar work side by side.
std::vector<std::vector<int64_t>> split_by_tokens(std::span<const int64_t> lengths, int64_t budget,
                                                  int64_t ranks, int64_t multiple);

}  // namespace qianli::data
