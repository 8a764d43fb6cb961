#include "qianli/formats/box.h"

#include <gtest/gtest.h>

namespace qianli::formats {
namespace {

// Every range of some shapes: the boxes hold its elements, in order, each once.
TEST(Boxes, of_any_range_hold_its_elements_in_order) {
  const std::vector<std::vector<int64_t>> shapes = {{},        {7},       {3, 5},
                                                    {1, 4, 1}, {2, 3, 4}, {2, 1, 3, 2}};
  for (const auto& shape : shapes) {
    int64_t total = 1;
    for (const int64_t size : shape) total *= size;
    for (int64_t first = 0; first < total; ++first) {
      for (int64_t count = 0; first + count <= total; ++count) {
        int64_t next = first;
        const auto boxes = boxes_of(shape, first, count);
        EXPECT_LE(boxes.size(), std::max<size_t>(1, 2 * shape.size()));
        for (const Box& box : boxes) {
          ASSERT_EQ(box.shape.size(), shape.size());
          for (int64_t i = 0; i < box.elements(); ++i) {
            int64_t rest = i, place = 0, stride = 1;
            for (size_t axis = shape.size(); axis-- > 0;) {
              place += (box.offset[axis] + rest % box.shape[axis]) * stride;
              rest /= box.shape[axis];
              stride *= shape[axis];
            }
            ASSERT_EQ(place, next++);
          }
        }
        ASSERT_EQ(next, first + count);
      }
    }
  }
}

TEST(Boxes, of_a_whole_tensor_is_one) {
  const std::vector<int64_t> shape = {3, 4};
  EXPECT_EQ(boxes_of(shape, 0, 12), (std::vector<Box>{{{0, 0}, {3, 4}}}));
  EXPECT_EQ(boxes_of(shape, 3, 6),
            (std::vector<Box>{{{0, 3}, {1, 1}}, {{1, 0}, {1, 4}}, {{2, 0}, {1, 1}}}));
}

}  // namespace
}  // namespace qianli::formats
