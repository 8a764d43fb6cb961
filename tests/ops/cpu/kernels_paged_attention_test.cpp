// Against a double loop, with blocks in any order.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "qianli/ops/cpu/paged_attention.h"
#include "tests/ops/cpu/kernels_support.h"

namespace qianli::ops {
namespace {

struct Case {
  int64_t heads, key_heads, dim, value_dim, block_size, window;
  double softcap;
  bool slopes, sinks;
};

const Case kCases[] = {{4, 2, 16, 16, 16, 0, 0, false, false},
                       {6, 2, 20, 12, 32, 0, 0, false, false},
                       {8, 8, 64, 64, 16, 24, 0, false, true},
                       {16, 1, 40, 32, 16, 0, 5.0, true, false},
                       {3, 1, 7, 5, 64, 9, 0, true, true}};

float random_value(std::mt19937& random) {
  return std::uniform_real_distribution<float>(-1, 1)(random);
}

TEST(PagedAttentionKernel, equals_a_double_loop) {
  const std::vector<int64_t> lengths{1, 16, 33, 200, 1500};
  for (const Case& c : kCases) {
    std::mt19937 random(3);
    const auto rows = static_cast<int64_t>(lengths.size());
    std::vector<std::vector<int64_t>> tables;
    int64_t blocks = 0;
    for (const int64_t length : lengths) {
      auto& table = tables.emplace_back((length + c.block_size - 1) / c.block_size);
      for (int64_t& block : table) block = blocks++;
    }
    std::vector<int64_t> shuffled(blocks);
    for (int64_t i = 0; i < blocks; ++i) shuffled[i] = i;
    std::ranges::shuffle(shuffled, random);
    const int64_t width = static_cast<int64_t>(tables.back().size());
    std::vector<int64_t> flat(rows * width, -1);
    for (int64_t r = 0; r < rows; ++r) {
      for (size_t i = 0; i < tables[r].size(); ++i)
        flat[r * width + i] = tables[r][i] = shuffled[tables[r][i]];
      // What lies before the window is never read.
      const int64_t unseen =
          c.window > 0 ? std::max<int64_t>(0, lengths[r] - c.window) / c.block_size : 0;
      std::fill_n(flat.begin() + r * width, unseen, int64_t{1} << 40);
    }
    std::vector<float> q(rows * c.heads * c.dim), k(blocks * c.key_heads * c.block_size * c.dim),
        v(blocks * c.key_heads * c.block_size * c.value_dim), slopes(c.heads), sinks(c.heads);
    for (auto* values : {&q, &k, &v, &slopes, &sinks}) {
      for (float& value : *values) value = random_value(random);
    }
    for (float& slope : slopes) slope = std::abs(slope);  // the double loop has no maximum taken off
    std::vector<float> out(rows * c.heads * c.value_dim);
    const double scale = 1.5;
    cpu::paged_attention({.dtype = Dtype::kFloat32,
                          .rows = rows,
                          .query_heads = c.heads,
                          .key_heads = c.key_heads,
                          .head_dim = c.dim,
                          .value_dim = c.value_dim,
                          .block_size = c.block_size,
                          .scale = scale,
                          .softcap = c.softcap,
                          .window = c.window,
                          .slopes = c.slopes ? slopes.data() : nullptr,
                          .sinks = c.sinks ? sinks.data() : nullptr,
                          .q = q.data(),
                          .q_stride = c.heads * c.dim,
                          .q_head_stride = c.dim,
                          .k = k.data(),
                          .v = v.data(),
                          .k_block_stride = c.key_heads * c.block_size * c.dim,
                          .k_head_stride = c.block_size * c.dim,
                          .k_stride = c.dim,
                          .v_block_stride = c.key_heads * c.block_size * c.value_dim,
                          .v_head_stride = c.block_size * c.value_dim,
                          .v_stride = c.value_dim,
                          .tables = flat.data(),
                          .table_stride = width,
                          .lengths = lengths.data(),
                          .out = out.data()});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t h = 0; h < c.heads; ++h) {
        const int64_t key_head = h / (c.heads / c.key_heads);
        std::vector<double> expected(c.value_dim, 0.0);
        double sum = c.sinks ? std::exp(static_cast<double>(sinks[h])) : 0.0;
        const int64_t first = c.window > 0 ? std::max<int64_t>(0, lengths[r] - c.window) : 0;
        for (int64_t j = first; j < lengths[r]; ++j) {
          const int64_t block = tables[r][j / c.block_size] * c.key_heads + key_head;
          const int64_t row = block * c.block_size + j % c.block_size;
          double z = 0;
          for (int64_t i = 0; i < c.dim; ++i)
            z += static_cast<double>(q[(r * c.heads + h) * c.dim + i]) * k[row * c.dim + i];
          z *= scale;
          if (c.softcap > 0) z = c.softcap * std::tanh(z / c.softcap);
          if (c.slopes) z += slopes[h] * static_cast<double>(j - (lengths[r] - 1));
          const double p = std::exp(z);
          sum += p;
          for (int64_t i = 0; i < c.value_dim; ++i) expected[i] += p * v[row * c.value_dim + i];
        }
        for (int64_t i = 0; i < c.value_dim; ++i) {
          ASSERT_NEAR(out[(r * c.heads + h) * c.value_dim + i], expected[i] / sum, 2e-5)
              << "heads " << c.heads << " row " << r << " head " << h;
        }
      }
    }
  }
}

}  // namespace
}  // namespace qianli::ops
