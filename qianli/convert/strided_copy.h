// Copying a block of a matrix whose rows and columns lie at any distance.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qianli::convert {

// Element (r, c) lies at first + r * row_step + c * column_step, in elements.
struct Strided {
  int64_t first = 0;
  int64_t row_step = 0;
  int64_t column_step = 0;
};

// Elements of `width` bytes (1, 2, 4 or 8). The blocks do not overlap; addresses need no alignment.
void strided_copy(int64_t rows, int64_t columns, size_t width, const std::byte* from,
                  const Strided& source, std::byte* to, const Strided& target);

}  // namespace qianli::convert
