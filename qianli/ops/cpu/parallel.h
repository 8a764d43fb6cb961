// Threads and reusable scratch memory for the CPU kernels. Plain code: the vector code gets a range
// of work and knows nothing of threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace qianli::ops::cpu {

// Memory of the calling thread, 128-byte aligned, valid until the next call with the same slot by
// the same thread. Contents are undefined. It grows and is kept for later calls.
enum class Slot { kShared, kTask, kMask };
float* scratch(Slot slot, size_t floats);

// Chunks a loop over `count` items falls into when no chunk shall have fewer than `grain` items.
inline int num_chunks(int64_t count, int64_t grain) {
  if (omp_in_parallel()) return 1;
  const int64_t useful = std::max<int64_t>(1, count / std::max<int64_t>(1, grain));
  return static_cast<int>(std::min<int64_t>(omp_get_max_threads(), useful));
}

// body(begin, end, chunk) for `chunks` equal ranges of [0, count). Which ranges there are depends
// on `chunks` alone, so partial results per chunk, added in chunk order, are reproducible.
template <class Body>
void parallel_chunks(int64_t count, int chunks, const Body& body) {
  if (count <= 0) return;
  if (chunks == 1) return body(int64_t{0}, count, 0);
#pragma omp parallel for num_threads(chunks) schedule(static, 1)
  for (int chunk = 0; chunk < chunks; ++chunk) {
    body(count * chunk / chunks, count * (chunk + 1) / chunks, chunk);
  }
}

template <class Body>
void parallel_ranges(int64_t count, int64_t grain, const Body& body) {
  parallel_chunks(count, num_chunks(count, grain),
                  [&](int64_t begin, int64_t end, int) { body(begin, end); });
}

// body(task) for tasks of uneven size that write to disjoint places: whoever is free takes the
// next.
template <class Body>
void parallel_tasks(int64_t count, const Body& body) {
  if (count <= 1 || omp_in_parallel() || omp_get_max_threads() == 1) {
    for (int64_t task = 0; task < count; ++task) body(task);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < count; ++task) body(task);
}

// Rows of `width` elements per chunk that are worth a thread's wake-up.
inline int64_t row_grain(int64_t width) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width));
}

}  // namespace qianli::ops::cpu
