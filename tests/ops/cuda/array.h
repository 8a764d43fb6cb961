// Arrays in device memory with guards around them, and the comparison of results.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/ops/cuda/backend.h"

namespace qianli::testing {

using ops::Dtype;

// Skips where no kernel can run, saying why.
class CudaKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!kernels()) GTEST_SKIP() << why_no_kernels();
  }
};

// Bytes on the device between two guards of 0xff: as floats and bfloat16 these are NaN, so a read
// outside spoils a result, and a write outside is found by guards_intact.
class GuardedBytes {
 public:
  // The data starts `offset` bytes after a 256-byte border.
  GuardedBytes(const void* data, std::size_t bytes, std::size_t offset);
  ~GuardedBytes();
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;
  void* data() const;
  void read(void* to) const;
  bool guards_intact() const;

 private:
  std::size_t bytes_, offset_;
  char* block_;
};

// Floating-point numbers of a storage type. `values` are what the storage holds: already rounded to
// it.
class Array {
 public:
  // `shift`: elements after an aligned border, for unaligned cases.
  Array(Dtype dtype, const std::vector<double>& numbers, std::size_t shift = 0);
  template <class T = void>
  T* data() const {
    return static_cast<T*>(bytes_.data());
  }
  std::vector<double> read() const;
  const std::vector<double>& values() const { return values_; }
  std::size_t size() const { return values_.size(); }

 private:
  Dtype dtype_;
  std::vector<double> values_;
  GuardedBytes bytes_;
};

class Integers {
 public:
  explicit Integers(std::vector<int64_t> values);
  const int64_t* data() const { return static_cast<const int64_t*>(bytes_.data()); }
  const std::vector<int64_t>& values() const { return values_; }

 private:
  std::vector<int64_t> values_;
  GuardedBytes bytes_;
};

// Reproducible numbers of about unit size.
std::vector<double> random_numbers(std::size_t count, uint64_t seed);
std::vector<double> zeros(std::size_t count);

// Largest error against the largest expected value, at most: one rounding of the storage, or
// float32 arithmetic where the result is float32.
constexpr double kFloatTolerance = 1e-5, kBFloat16Tolerance = 4e-3;
inline double tolerance(Dtype dtype) {
  return dtype == Dtype::kFloat32 ? kFloatTolerance : kBFloat16Tolerance;
}
void expect_near(const Array& actual, const std::vector<double>& expected, double tolerance,
                 const std::string& what);

constexpr Dtype kDtypes[] = {Dtype::kFloat32, Dtype::kBFloat16};
std::string describe(Dtype dtype, int64_t rows, int64_t width);

}  // namespace qianli::testing
