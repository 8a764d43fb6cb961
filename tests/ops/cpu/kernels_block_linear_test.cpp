#include "qianli/ops/cpu/block_linear.h"

#include <hwy/aligned_allocator.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "kernels_support.h"
#include "qianli/formats/ggml_blocks.h"

namespace qianli::ops::testing {
namespace {

using cpu::BlockCode;
using cpu::kBlockSize;

constexpr BlockCode kCodes[] = {BlockCode::kQ8_0, BlockCode::kQ4_0};

formats::GgmlType ggml_type(BlockCode code) {
  return code == BlockCode::kQ8_0 ? formats::GgmlType::kQ8_0 : formats::GgmlType::kQ4_0;
}

// A matrix of random blocks: all codes, scales of both signs and some that are 0.
class Weight {
 public:
  Weight(BlockCode code, int64_t out, int64_t in, uint64_t seed)
      : code_(code),
        out_(out),
        in_(in),
        width_((in + kBlockSize - 1) / kBlockSize * kBlockSize),
        data_(hwy::AllocateAligned<uint8_t>(cpu::block_matrix_bytes(code, out, in))) {
    std::memset(data_.get(), 0, cpu::block_matrix_bytes(code, out, in));
    std::mt19937_64 engine(seed);
    const size_t bytes = code == BlockCode::kQ8_0 ? 34 : 18;
    row_bytes_ = static_cast<size_t>(width_ / kBlockSize) * bytes;
    for (int64_t row = 0; row < out; ++row) {
      std::vector<uint8_t> blocks(row_bytes_);
      for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(engine());
      for (size_t b = 0; b < row_bytes_; b += bytes) {
        // Half-precision numbers between 2^-7 and 2^-5.
        const uint16_t scale = static_cast<uint16_t>(
            (engine() % 7 == 0 ? 0 : 0x2000 + engine() % 0x800) | (engine() & 0x8000));
        std::memcpy(&blocks[b], &scale, sizeof scale);
      }
      cpu::pack_row(matrix(), row, blocks.data());
      values_.resize(static_cast<size_t>((row + 1) * width_));
      formats::dequantize(ggml_type(code), std::as_bytes(std::span(blocks)),
                          std::span(values_).last(static_cast<size_t>(width_)));
      rows_.push_back(blocks);
    }
  }

  cpu::BlockMatrix matrix() { return {code_, out_, in_, data_.get()}; }
  double operator()(int64_t row, int64_t column) const {
    return values_[static_cast<size_t>(row * width_ + column)];
  }
  void expect_unpacked() {
    for (int64_t row = 0; row < out_; ++row) {
      std::vector<uint8_t> blocks(row_bytes_);
      cpu::unpack_row(matrix(), row, blocks.data());
      ASSERT_EQ(blocks, rows_[static_cast<size_t>(row)]) << "row " << row;
    }
  }

 private:
  BlockCode code_;
  int64_t out_, in_, width_;
  hwy::AlignedFreeUniquePtr<uint8_t[]> data_;
  size_t row_bytes_ = 0;
  std::vector<float> values_;
  std::vector<std::vector<uint8_t>> rows_;
};

// Rows of x as the kernel rounds them, and half a step of each block.
struct Rounded {
  std::vector<double> values, half_steps;

  Rounded(const Array& x, int64_t rows, int64_t in) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t begin = 0; begin < in; begin += kBlockSize) {
        const int64_t end = std::min(begin + kBlockSize, in);
        float magnitude = 0;
        for (int64_t i = begin; i < end; ++i)
          magnitude = std::max(magnitude, std::abs(static_cast<float>(x[r * in + i])));
        const float inverse = magnitude > 0 ? 127.0f / magnitude : 0;
        for (int64_t i = begin; i < end; ++i) {
          const float whole = std::nearbyint(static_cast<float>(x[r * in + i]) * inverse);
          values.push_back(static_cast<double>(whole) * (magnitude / 127.0f));
          half_steps.push_back(magnitude / 127.0 / 2);
        }
      }
    }
  }
};

struct Case {
  int64_t rows, in, out;
  bool bias;
};
constexpr Case kCases[] = {{1, 1, 1, false},   {1, 32, 16, true},   {2, 33, 17, true},
                           {3, 100, 31, true}, {4, 576, 9, false},  {7, 95, 50, true},
                           {9, 64, 900, true}, {1, 300, 901, false}};

Array run(const Case& c, Dtype dtype, Array& x, Weight& weight, Array& bias) {
  Array y(dtype, c.rows * c.out);
  cpu::block_linear({.dtype = dtype,
                     .rows = c.rows,
                     .x = x.data(),
                     .weight = weight.matrix(),
                     .bias = c.bias ? bias.data() : nullptr,
                     .y = y.data()});
  return y;
}

TEST(BlockLinearKernels, rows_come_back_as_they_were_packed) {
  for (const BlockCode code : kCodes) {
    for (const auto& [out, in] : {std::pair{1, 1}, {16, 32}, {17, 33}, {40, 160}})
      Weight(code, out, in, 5).expect_unpacked();
  }
}

// What is exact but for float32 sums of blocks: the product of the rounded rows and the numbers
// that the blocks stand for. And rounding x moves a result by no more than half a step for each
// weight.
TEST(BlockLinearKernels, products_equal_the_definition) {
  on_every_target_and_vnni([] {
    for (const Case& c : kCases) {
      for (const BlockCode code : kCodes) {
        Weight weight(code, c.out, c.in, 2);
        for (const Dtype dtype : kDtypes) {
          Array x = random_array(dtype, c.rows * c.in, 1), bias = random_array(dtype, c.out, 3);
          const Rounded rounded(x, c.rows, c.in);
          std::vector<double> expected;
          const Array y = run(c, dtype, x, weight, bias);
          for (int64_t r = 0; r < c.rows; ++r) {
            for (int64_t o = 0; o < c.out; ++o) {
              double sum = c.bias ? bias[o] : 0.0, exact = sum, bound = 0.0;
              for (int64_t i = 0; i < c.in; ++i) {
                const auto at = static_cast<size_t>(r * c.in + i);
                sum += rounded.values[at] * weight(o, i);
                exact += x[r * c.in + i] * weight(o, i);
                bound += rounded.half_steps[at] * std::abs(weight(o, i));
              }
              expected.push_back(sum);
              ASSERT_LE(std::abs(sum - exact), bound * (1 + 1e-5) + 1e-12);
            }
          }
          const double largest = code == BlockCode::kQ8_0 ? 4.0 : 0.25;  // of the weights
          expect_close(y, expected, dtype, largest * std::sqrt(static_cast<double>(c.in)));
        }
      }
    }
  });
}

// Sums are made in the same order, with one rounding for a block: whatever the vectors' width.
TEST(BlockLinearKernels, a_row_is_the_same_alone_and_among_others) {
  on_every_target_and_vnni([] {
    for (const BlockCode code : kCodes) {
      const Case together{7, 131, 77, true}, alone{1, 131, 77, true};
      Weight weight(code, 77, 131, 2);
      Array x = random_array(Dtype::kFloat32, 7 * 131, 1);
      Array bias = random_array(Dtype::kFloat32, 77, 3), one(Dtype::kFloat32, 131);
      const Array all = run(together, Dtype::kFloat32, x, weight, bias);
      for (int64_t r = 0; r < 7; ++r) {
        for (int64_t i = 0; i < 131; ++i) one.set(i, x[r * 131 + i]);
        const Array y = run(alone, Dtype::kFloat32, one, weight, bias);
        for (int64_t o = 0; o < 77; ++o) ASSERT_EQ(y[o], all[r * 77 + o]) << r << ", " << o;
      }
    }
  });
}

TEST(BlockLinearKernels, numbers_that_are_not_finite_are_passed_on) {
  on_every_target_and_vnni([] {
    for (const double wild :
         {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::quiet_NaN()}) {
      const Case c{2, 70, 20, false};
      Weight weight(BlockCode::kQ8_0, 20, 70, 2);
      Array x = random_array(Dtype::kFloat32, 140, 1), bias(Dtype::kFloat32, 20);
      x.set(70 + 3, wild);
      const Array y = run(c, Dtype::kFloat32, x, weight, bias);
      for (int64_t o = 0; o < 20; ++o) {
        ASSERT_TRUE(std::isfinite(y[o]));
        ASSERT_FALSE(std::isfinite(y[20 + o]));
      }
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
