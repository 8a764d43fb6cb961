#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

struct Case {
  int64_t tokens, width, vocabulary;
};
constexpr Case kCases[] = {{0, 8, 4}, {5, 1, 3}, {40, 33, 7}, {300, 200, 50}};

std::vector<int64_t> some_ids(const Case& c) {
  std::vector<int64_t> ids;
  for (int64_t t = 0; t < c.tokens; ++t) ids.push_back(t * t % c.vocabulary);
  return ids;
}

TEST(EmbeddingKernels, forward_copies_rows) {
  on_every_target([] {
    for (const Case& c : kCases) {
      for (const Dtype dtype : kDtypes) {
        Array table = random_array(dtype, c.vocabulary * c.width, 1), y(dtype, c.tokens * c.width);
        const auto ids = some_ids(c);
        cpu_kernels().embedding_forward({.dtype = dtype,
                                         .tokens = c.tokens,
                                         .width = c.width,
                                         .ids = ids.data(),
                                         .table = table.data(),
                                         .y = y.data()},
                                        nullptr);
        for (int64_t i = 0; i < y.size(); ++i) {
          const int64_t row = ids[static_cast<size_t>(i / c.width)];
          ASSERT_EQ(y[i], table[row * c.width + i % c.width]) << "element " << i;
        }
        EXPECT_TRUE(y.guards_untouched());
      }
    }
  });
}

// Bitwise: equal ids are added in token order, in float32.
TEST(EmbeddingKernels, backward_adds_in_token_order) {
  on_every_target([] {
    for (const Case& c : kCases) {
      for (const Dtype dtype : kDtypes) {
        Array grad = random_array(dtype, c.tokens * c.width, 1);
        Array table = random_array(Dtype::kFloat32, c.vocabulary * c.width, 2);
        std::vector<float> want;
        for (int64_t i = 0; i < table.size(); ++i) want.push_back(static_cast<float>(table[i]));
        const auto ids = some_ids(c);
        for (int64_t i = 0; i < grad.size(); ++i) {
          const int64_t row = ids[static_cast<size_t>(i / c.width)];
          want[static_cast<size_t>(row * c.width + i % c.width)] += static_cast<float>(grad[i]);
        }
        cpu_kernels().embedding_backward({.dtype = dtype,
                                          .tokens = c.tokens,
                                          .width = c.width,
                                          .vocabulary = c.vocabulary,
                                          .ids = ids.data(),
                                          .grad_y = grad.data(),
                                          .grad_table = static_cast<float*>(table.data())},
                                         nullptr);
        for (int64_t i = 0; i < table.size(); ++i) {
          ASSERT_EQ(table[i], want[static_cast<size_t>(i)]) << "element " << i;
        }
        EXPECT_TRUE(table.guards_untouched());
      }
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
