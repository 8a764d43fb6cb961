#include "qianli/convert/strided_copy.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace qianli::convert {
namespace {

constexpr int64_t kTile =
    32;  // rows and columns of a transposed tile: both sides stay in the first cache

template <size_t kWidth>
void copy_tiles(int64_t rows, int64_t columns, const std::byte* from, const Strided& source,
                std::byte* to, const Strided& target) {
  for (int64_t row = 0; row < rows; row += kTile) {
    const int64_t end_row = std::min(row + kTile, rows);
    for (int64_t column = 0; column < columns; column += kTile) {
      const int64_t end_column = std::min(column + kTile, columns);
      for (int64_t r = row; r < end_row; ++r) {
        const std::byte* in =
            from + (r * source.row_step + column * source.column_step) * int64_t{kWidth};
        std::byte* out = to + (r * target.row_step + column * target.column_step) * int64_t{kWidth};
        for (int64_t c = column; c < end_column; ++c) {
          std::memcpy(out, in, kWidth);
          in += source.column_step * int64_t{kWidth};
          out += target.column_step * int64_t{kWidth};
        }
      }
    }
  }
}

// Columns follow one another on both sides.
void copy_rows(int64_t rows, int64_t columns, size_t width, const std::byte* from,
               int64_t from_step, std::byte* to, int64_t to_step) {
  const auto bytes = static_cast<size_t>(columns) * width;
  if (from_step == columns && to_step == columns) {
    std::memcpy(to, from, bytes * static_cast<size_t>(rows));
    return;
  }
  const auto w = static_cast<int64_t>(width);
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(to + r * to_step * w, from + r * from_step * w, bytes);
}

}  // namespace

void strided_copy(int64_t rows, int64_t columns, size_t width, const std::byte* from,
                  const Strided& source, std::byte* to, const Strided& target) {
  const auto w = static_cast<int64_t>(width);
  from += source.first * w;
  to += target.first * w;
  if (source.column_step == 1 && target.column_step == 1) {
    return copy_rows(rows, columns, width, from, source.row_step, to, target.row_step);
  }
  if (source.row_step == 1 && target.row_step == 1) {
    return copy_rows(columns, rows, width, from, source.column_step, to, target.column_step);
  }
  switch (width) {
    case 1:
      return copy_tiles<1>(rows, columns, from, source, to, target);
    case 2:
      return copy_tiles<2>(rows, columns, from, source, to, target);
    case 4:
      return copy_tiles<4>(rows, columns, from, source, to, target);
    case 8:
      return copy_tiles<8>(rows, columns, from, source, to, target);
    default:
      throw std::invalid_argument("strided_copy: elements of 1, 2, 4 or 8 bytes");
  }
}

}  // namespace qianli::convert
