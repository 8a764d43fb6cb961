#include "qianli/formats/box.h"

#include <functional>
#include <numeric>

namespace qianli::formats {
namespace {

int64_t product(std::span<const int64_t> sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

class Cutter {
 public:
  explicit Cutter(std::span<const int64_t> shape) : shape_(shape) {}

  // [first, last) of the elements at the place `fixed` of the first axes.
  void cut(const std::vector<int64_t>& fixed, int64_t first, int64_t last) {
    if (first >= last) return;
    const size_t axis = fixed.size();
    if (axis == shape_.size()) return add(fixed, 0, 0);
    const int64_t row = product(shape_.subspan(axis + 1));
    const int64_t head = (first + row - 1) / row, tail = last / row;  // whole rows lie between
    if (head > tail) return inner(fixed, tail, first, last, row);
    if (first < head * row) inner(fixed, head - 1, first, head * row, row);
    if (head < tail) add(fixed, head, tail);
    if (tail * row < last) inner(fixed, tail, tail * row, last, row);
  }
  std::vector<Box> boxes;

 private:
  void inner(std::vector<int64_t> fixed, int64_t index, int64_t first, int64_t last, int64_t row) {
    fixed.push_back(index);
    cut(fixed, first - index * row, last - index * row);
  }
  void add(const std::vector<int64_t>& fixed, int64_t begin, int64_t end) {
    Box box{.offset = fixed, .shape = std::vector<int64_t>(fixed.size(), 1)};
    for (size_t axis = fixed.size(); axis < shape_.size(); ++axis) {
      const bool cut_axis = axis == fixed.size();
      box.offset.push_back(cut_axis ? begin : 0);
      box.shape.push_back(cut_axis ? end - begin : shape_[axis]);
    }
    boxes.push_back(std::move(box));
  }

  std::span<const int64_t> shape_;
};

}  // namespace

int64_t Box::elements() const { return product(shape); }

std::vector<Box> boxes_of(std::span<const int64_t> shape, int64_t first, int64_t count) {
  Cutter cutter(shape);
  cutter.cut({}, first, first + count);
  return std::move(cutter.boxes);
}

}  // namespace qianli::formats
