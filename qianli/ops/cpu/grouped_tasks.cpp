#include "qianli/ops/cpu/grouped_tasks.h"

#include <omp.h>

#include <algorithm>
#include <numeric>

namespace qianli::ops::cpu {

std::vector<GroupTask> group_tasks(const Groups& shape, int64_t width, int64_t grain,
                                   bool with_empty) {
  constexpr int64_t kTasksPerThread = 6;
  const int64_t all_rows = std::accumulate(shape.counts, shape.counts + shape.groups, int64_t{0});
  const int64_t wanted = omp_in_parallel() ? 1 : kTasksPerThread * omp_get_max_threads();
  const int64_t pieces = (width + grain - 1) / grain;
  std::vector<GroupTask> tasks;
  int64_t first_row = 0;
  for (int64_t group = 0; group < shape.groups; ++group) {
    const int64_t rows = shape.counts[group];
    if (rows == 0 && !with_empty) continue;
    const int64_t share = all_rows > 0 ? (rows * wanted + all_rows - 1) / all_rows : 1;
    const int64_t parts = std::clamp<int64_t>(share, 1, std::max<int64_t>(1, pieces));
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t begin = pieces * part / parts * grain;
      const int64_t end = std::min(width, pieces * (part + 1) / parts * grain);
      tasks.push_back({group, first_row, rows, begin, end});
    }
    first_row += rows;
  }
  return tasks;
}

}  // namespace qianli::ops::cpu
