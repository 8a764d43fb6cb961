#include "kernels_support.h"

#define HWY_WANT_AVX3_DL
#include <hwy/targets.h>
#include <omp.h>

#include <bit>
#include <cmath>
#include <random>

namespace qianli::ops::testing {
namespace {

constexpr int64_t kGuards = 16;
constexpr float kGuard = -7.25f;

const std::vector<int64_t> kTargets{HWY_AVX3, HWY_AVX2, HWY_SSE4, HWY_NEON, HWY_EMU128, HWY_SCALAR};

void on_targets(const std::vector<int64_t>& targets, const std::function<void()>& body) {
  const int threads_before = omp_get_max_threads();
  hwy::SetSupportedTargetsForTest(0);
  const int64_t supported = hwy::SupportedTargets() & HWY_TARGETS;
  for (const int64_t target : targets) {
    if (!(supported & target)) continue;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    for (const int threads : {1, 3}) {
      omp_set_num_threads(threads);
      SCOPED_TRACE(::testing::Message()
                   << hwy::TargetName(target) << ", " << threads << " threads");
      body();
      if (::testing::Test::HasFailure()) break;
    }
  }
  omp_set_num_threads(threads_before);
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace

void on_every_target(const std::function<void()>& body) { on_targets(kTargets, body); }

void on_every_target_and_vnni(const std::function<void()>& body) {
  std::vector<int64_t> targets = kTargets;
  targets.insert(targets.begin(), HWY_AVX3_DL);
  on_targets(targets, body);
}

uint16_t to_bf16(float value) {
  auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return 0x7fc0;
  bits += 0x7fff + ((bits >> 16) & 1);
  return static_cast<uint16_t>(bits >> 16);
}

float from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

Array::Array(Dtype dtype, int64_t size, int64_t offset)
    : dtype_(dtype), size_(size), offset_(offset) {
  const auto total = static_cast<size_t>(offset + size + kGuards);
  if (dtype == Dtype::kFloat32) {
    floats_.assign(total, kGuard);
  } else {
    halves_.assign(total, to_bf16(kGuard));
  }
}

void* Array::data() {
  if (dtype_ == Dtype::kFloat32) return floats_.data() + offset_;
  return halves_.data() + offset_;
}

double Array::operator[](int64_t i) const {
  const auto at = static_cast<size_t>(offset_ + i);
  return dtype_ == Dtype::kFloat32 ? floats_[at] : from_bf16(halves_[at]);
}

void Array::set(int64_t i, double value) {
  const auto at = static_cast<size_t>(offset_ + i);
  if (dtype_ == Dtype::kFloat32) {
    floats_[at] = static_cast<float>(value);
  } else {
    halves_[at] = to_bf16(static_cast<float>(value));
  }
}

bool Array::guards_untouched() const {
  for (int64_t i = -offset_; i < 0; ++i) {
    if ((*this)[i] != kGuard) return false;
  }
  for (int64_t i = size_; i < size_ + kGuards; ++i) {
    if ((*this)[i] != kGuard) return false;
  }
  return true;
}

Array random_array(Dtype dtype, int64_t size, uint64_t seed, double deviation) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal(0.0, deviation);
  Array array(dtype, size);
  for (int64_t i = 0; i < size; ++i) array.set(i, normal(engine));
  return array;
}

void expect_close(const Array& actual, const std::vector<double>& expected, Dtype dtype,
                  double magnitude, double float_tolerance) {
  ASSERT_EQ(actual.size(), static_cast<int64_t>(expected.size()));
  EXPECT_TRUE(actual.guards_untouched()) << "written outside the array";
  const double relative =
      dtype == Dtype::kFloat32 ? float_tolerance : float_tolerance + std::ldexp(1.0, -8);
  for (int64_t i = 0; i < actual.size(); ++i) {
    const double want = expected[static_cast<size_t>(i)];
    const double allowed = dtype == Dtype::kFloat32
                               ? float_tolerance * (std::abs(want) + magnitude)
                               : relative * std::abs(want) + float_tolerance * magnitude;
    ASSERT_LE(std::abs(actual[i] - want), allowed)
        << "element " << i << " of " << actual.size() << ": expected " << want << ", got "
        << actual[i];
  }
}

}  // namespace qianli::ops::testing
