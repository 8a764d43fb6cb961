#include "qianli/convert/strided_copy.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace qianli::convert {
namespace {

// Element by element, the way a reader would.
std::vector<uint32_t> expected(int64_t rows, int64_t columns, const std::vector<uint32_t>& from,
                               const Strided& source, std::vector<uint32_t> to,
                               const Strided& target) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      to[static_cast<size_t>(target.first + r * target.row_step + c * target.column_step)] =
          from[static_cast<size_t>(source.first + r * source.row_step + c * source.column_step)];
    }
  }
  return to;
}

TEST(StridedCopy, equals_copying_one_element_after_the_other) {
  constexpr int64_t kRows = 37, kColumns = 41;
  std::vector<uint32_t> from(64 * 64), to(64 * 64, 7);
  std::iota(from.begin(), from.end(), 100);
  const std::vector<Strided> layouts = {
      {0, kColumns, 1}, {5, 64, 1}, {3, 1, 64}, {0, 1, kRows}, {1, 50, 1}};
  for (const Strided& source : layouts) {
    for (const Strided& target : layouts) {
      std::vector<uint32_t> copied = to;
      strided_copy(kRows, kColumns, 4, reinterpret_cast<const std::byte*>(from.data()), source,
                   reinterpret_cast<std::byte*>(copied.data()), target);
      EXPECT_EQ(copied, expected(kRows, kColumns, from, source, to, target))
          << source.row_step << "," << source.column_step << " to " << target.row_step << ","
          << target.column_step;
    }
  }
}

}  // namespace
}  // namespace qianli::convert
