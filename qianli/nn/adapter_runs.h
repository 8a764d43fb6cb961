// Which rows of a pass have which of the adapters that are attached to a model.
#pragma once

#include <cstdint>
#include <vector>

namespace qianli::nn {

constexpr int64_t kNoAdapter = -1;

// Rows [first, first + count).
struct AdapterRun {
  int64_t adapter = 0;
  int64_t first = 0, count = 0;
};

// Behind `runs`, in the order of the rows: `count` more rows from `first` on.
inline void add_run(std::vector<AdapterRun>& runs, int64_t adapter, int64_t first, int64_t count) {
  if (adapter == kNoAdapter || count == 0) return;
  const bool goes_on = !runs.empty() && runs.back().adapter == adapter &&
                       runs.back().first + runs.back().count == first;
  if (goes_on) {
    runs.back().count += count;
  } else {
    runs.push_back({adapter, first, count});
  }
}

// Of rows that all have the same.
inline std::vector<AdapterRun> same_adapter(int64_t adapter, int64_t rows) {
  std::vector<AdapterRun> runs;
  add_run(runs, adapter, 0, rows);
  return runs;
}

}  // namespace qianli::nn
