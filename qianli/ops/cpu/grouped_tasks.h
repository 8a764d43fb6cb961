// How the products of a grouped linear fall into tasks for the threads. Plain code.
#pragma once

#include <cstdint>
#include <vector>

#include "qianli/ops/kernels.h"

namespace qianli::ops::cpu {

// Rows [first_row, first_row + rows) of a group, and the part [begin, end) of an axis of its
// matrix.
struct GroupTask {
  int64_t group, first_row, rows, begin, end;
};

// Cuts the axis of `width` elements, of every group, at multiples of `grain` into parts of about
// equal work: a large group into many, a small one stays whole. Groups without rows have a task
// only `with_empty`. Which tasks there are does not change what a task computes.
std::vector<GroupTask> group_tasks(const Groups& shape, int64_t width, int64_t grain,
                                   bool with_empty);

}  // namespace qianli::ops::cpu
