// Boxes of a tensor: [offset, offset + shape) along each axis.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qianli::formats {

struct Box {
  std::vector<int64_t> offset, shape;

  int64_t elements() const;
  bool operator==(const Box&) const = default;
};

// The elements [first, first + count) of a tensor, row-major, as boxes in the same order: fewer
// than two for each axis.
std::vector<Box> boxes_of(std::span<const int64_t> shape, int64_t first, int64_t count);

}  // namespace qianli::formats
