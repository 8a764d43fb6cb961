// A square of yes and no.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace qianli {

class BitGrid {
 public:
  explicit BitGrid(int64_t side) : side_(side), bits_(static_cast<size_t>(side * side)) {}

  int64_t side() const { return side_; }
  bool at(int64_t row, int64_t column) const { return bits_[index(row, column)] != 0; }
  void set(int64_t row, int64_t column) { bits_[index(row, column)] = 1; }
  int64_t count() const { return std::ranges::count(bits_, char{1}); }

 private:
  size_t index(int64_t row, int64_t column) const {
    return static_cast<size_t>(row * side_ + column);
  }
  int64_t side_;
  std::vector<char> bits_;
};

}  // namespace qianli
