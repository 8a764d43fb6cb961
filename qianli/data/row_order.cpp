#include "qianli/data/row_order.h"

#include <fmt/core.h>

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>

#include "qianli/base/error.h"
#include "qianli/data/instruction/packing.h"
#include "qianli/data/numpy_random.h"

namespace qianli::data {
namespace {

// Rows of places among the samples.
using Rows = std::vector<std::vector<int64_t>>;

Rows rows_as_they_come(std::span<const int64_t> places, std::span<const int32_t> lengths,
                       int64_t capacity) {
  Rows rows;
  int64_t room = 0;
  for (const int64_t place : places) {
    const int64_t length = lengths[static_cast<size_t>(place)];
    if (rows.empty() || length > room) {
      rows.emplace_back();
      room = capacity;
    }
    rows.back().push_back(place);
    room -= length;
  }
  return rows;
}

Rows best_rows(std::span<const int64_t> places, std::span<const int32_t> lengths,
               int64_t capacity) {
  std::vector<int32_t> in_order;
  for (const int64_t place : places) in_order.push_back(lengths[static_cast<size_t>(place)]);
  Rows rows = pack_bins(in_order, capacity);
  for (auto& row : rows) {
    for (int64_t& member : row) member = places[static_cast<size_t>(member)];
  }
  return rows;
}

Rows rows_of_epoch(std::span<const int64_t> places, std::span<const int32_t> lengths,
                   const RowOptions& options, RandomState& random) {
  if (options.packing == RowPacking::kGreedy)
    return rows_as_they_come(places, lengths, options.capacity);
  Rows rows = best_rows(places, lengths, options.capacity);
  // The fullest came first.
  if (options.shuffle) random.shuffle(std::span(rows));
  return rows;
}

// Rows into `bins` bins, the longest first, each where least is so far.
std::vector<std::vector<int64_t>> even_bins(std::span<const int64_t> lengths,
                                            const std::vector<int64_t>& longest_first,
                                            int64_t bins) {
  using Bin = std::pair<int64_t, int64_t>;  // tokens, number
  std::priority_queue<Bin, std::vector<Bin>, std::greater<>> emptiest;
  for (int64_t b = 0; b < bins; ++b) emptiest.push({0, b});
  std::vector<std::vector<int64_t>> members(static_cast<size_t>(bins));
  for (const int64_t row : longest_first) {
    const auto [tokens, bin] = emptiest.top();
    emptiest.pop();
    members[static_cast<size_t>(bin)].push_back(row);
    emptiest.push({tokens + lengths[static_cast<size_t>(row)], bin});
  }
  return members;
}

int64_t tokens_of(std::span<const int64_t> lengths, const std::vector<int64_t>& rows) {
  int64_t tokens = 0;
  for (const int64_t row : rows) tokens += lengths[static_cast<size_t>(row)];
  return tokens;
}

}  // namespace

RowPacking row_packing(std::string_view name) {
  if (name == "none") return RowPacking::kNone;
  if (name == "greedy") return RowPacking::kGreedy;
  if (name == "best_fit") return RowPacking::kBestFit;
  throw ConfigError("data", fmt::format("expected none, greedy or best_fit, got {}", name));
}

double RowOrder::epochs_of(int64_t rows) const {
  int64_t begin = 0;
  for (size_t epoch = 0; epoch < epoch_ends.size(); ++epoch) {
    if (rows <= epoch_ends[epoch]) {
      return static_cast<double>(epoch) +
             static_cast<double>(rows - begin) / static_cast<double>(epoch_ends[epoch] - begin);
    }
    begin = epoch_ends[epoch];
  }
  return static_cast<double>(epoch_ends.size());
}

RowOrder order_rows(std::span<const int32_t> samples, std::span<const int32_t> lengths,
                    const RowOptions& options, const RowsWanted& wanted) {
  RowOrder order;
  RandomState random(options.seed);
  std::vector<int64_t> places(samples.size());
  const auto add = [&](const auto& row) {
    for (const int64_t place : row) order.samples.push_back(samples[static_cast<size_t>(place)]);
    order.starts.push_back(static_cast<int64_t>(order.samples.size()));
  };
  const auto enough = [&] {
    return std::ssize(order.epoch_ends) >= wanted.epochs && order.rows() >= wanted.rows;
  };
  while (!enough()) {
    std::iota(places.begin(), places.end(), int64_t{0});
    if (options.shuffle) random.shuffle(std::span(places));
    if (options.packing == RowPacking::kNone) {
      for (const int64_t place : places) add(std::span(&place, 1));
    } else {
      for (const auto& row : rows_of_epoch(places, lengths, options, random)) add(row);
    }
    order.epoch_ends.push_back(order.rows());
  }
  return order;
}

std::vector<std::vector<int64_t>> split_by_tokens(std::span<const int64_t> lengths, int64_t budget,
                                                  int64_t ranks, int64_t multiple) {
  std::vector<int64_t> longest_first(lengths.size());
  std::iota(longest_first.begin(), longest_first.end(), int64_t{0});
  std::ranges::stable_sort(longest_first, std::greater<>(),
                           [&](int64_t row) { return lengths[static_cast<size_t>(row)]; });
  const auto rows = static_cast<int64_t>(lengths.size());
  // More microbatches than rows for each rank would stay empty.
  const int64_t most = std::max<int64_t>(multiple, rows / ranks / multiple * multiple);
  for (int64_t count = multiple;; count += multiple) {
    auto bins = even_bins(lengths, longest_first, count * ranks);
    const bool fits = std::ranges::all_of(bins, [&](const auto& bin) {
      return bin.size() <= 1 || tokens_of(lengths, bin) <= budget;
    });
    if (!fits && count < most) continue;
    // Neighbours are equally full.
    std::ranges::stable_sort(bins, std::greater<>(),
                             [&](const auto& bin) { return tokens_of(lengths, bin); });
    return bins;
  }
}

}  // namespace qianli::data
