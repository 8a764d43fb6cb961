// Gradients of parameters that every row adds to, summed in a fixed order.
#pragma once

#include <algorithm>

#include "qianli/ops/cpu/parallel.h"

namespace qianli::ops::cpu {

inline void add_and_clear(float* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    to[i] += from[i];
    from[i] = 0.0f;
  }
}

// weight, bias: `size` gradients that grow, or null. body(begin, end, weight, bias) adds those of a
// range of rows of `width` elements to what it is given. Each chunk sums its rows in blocks, so
// that no float32 sum runs over more than kBlock rows; the chunks are then added in order.
template <class Body>
void sum_row_gradients(int64_t rows, int64_t width, int64_t size, float* weight, float* bias,
                       const Body& body) {
  constexpr int64_t kBlock = 128;
  const int chunks = num_chunks(rows, row_grain(width));
  float* partial = scratch(Slot::kShared, static_cast<size_t>(4 * size * chunks));
  std::fill_n(partial, 4 * size * chunks, 0.0f);
  parallel_chunks(rows, chunks, [&](int64_t begin, int64_t end, int chunk) {
    float* total = partial + 4 * size * chunk;
    float* block = total + 2 * size;
    for (int64_t row = begin; row < end; row += kBlock) {
      body(row, std::min(row + kBlock, end), weight ? block : nullptr,
           bias ? block + size : nullptr);
      add_and_clear(block, total, 2 * size);
    }
  });
  for (int chunk = 0; chunk < chunks; ++chunk) {
    float* total = partial + 4 * size * chunk;
    if (weight) add_and_clear(total, weight, size);
    if (bias) add_and_clear(total + size, bias, size);
  }
}

}  // namespace qianli::ops::cpu
