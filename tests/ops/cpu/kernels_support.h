// Helpers of the kernel tests: every test body runs once per instruction set and thread count the
// machine offers, for both storage types, against references in double precision.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "qianli/ops/kernels.h"

namespace qianli::ops::testing {

// Runs body for each compiled and supported instruction set, with one and with three threads.
void on_every_target(const std::function<void()>& body);
// Of a kernel that is compiled for AVX-512 with VNNI, too.
void on_every_target_and_vnni(const std::function<void()>& body);

uint16_t to_bf16(float value);
float from_bf16(uint16_t bits);

// An array in the storage of `dtype`, starting `offset` elements behind an aligned address and
// followed by guard elements that must stay untouched. Values are those the kernel will read.
class Array {
 public:
  Array(Dtype dtype, int64_t size, int64_t offset = 1);

  void* data();
  double operator[](int64_t i) const;
  void set(int64_t i, double value);
  int64_t size() const { return size_; }
  bool guards_untouched() const;

 private:
  Dtype dtype_;
  int64_t size_, offset_;
  std::vector<float> floats_;
  std::vector<uint16_t> halves_;
};

// Reproducible values, roughly normal with the given deviation.
Array random_array(Dtype dtype, int64_t size, uint64_t seed, double deviation = 1.0);

// |actual - expected| <= float_tolerance (bfloat16: one rounding, 2^-8) * (|expected| + magnitude).
// `magnitude` is the size of the terms the value is a sum of.
void expect_close(const Array& actual, const std::vector<double>& expected, Dtype dtype,
                  double magnitude, double float_tolerance = 2e-6);

inline constexpr Dtype kDtypes[] = {Dtype::kFloat32, Dtype::kBFloat16};

}  // namespace qianli::ops::testing
