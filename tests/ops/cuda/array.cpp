#include "tests/ops/cuda/array.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "tests/ops/cuda/bfloat16.h"

namespace qianli::testing {
namespace {

constexpr std::size_t kGuard = 256;

std::size_t size_of(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }

std::vector<char> encode(Dtype dtype, const std::vector<double>& numbers) {
  std::vector<char> bytes(numbers.size() * size_of(dtype));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const float value = static_cast<float>(numbers[i]);
    const std::uint16_t half = to_bfloat16(value);
    if (dtype == Dtype::kFloat32) {
      std::memcpy(&bytes[4 * i], &value, 4);
    } else {
      std::memcpy(&bytes[2 * i], &half, 2);
    }
  }
  return bytes;
}

std::vector<double> decode(Dtype dtype, const std::vector<char>& bytes) {
  std::vector<double> numbers(bytes.size() / size_of(dtype));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    float value;
    std::uint16_t half;
    if (dtype == Dtype::kFloat32) {
      std::memcpy(&value, &bytes[4 * i], 4);
    } else {
      std::memcpy(&half, &bytes[2 * i], 2);
      value = from_bfloat16(half);
    }
    numbers[i] = value;
  }
  return numbers;
}

}  // namespace

GuardedBytes::GuardedBytes(const void* data, std::size_t bytes, std::size_t offset)
    : bytes_(bytes), offset_(offset) {
  const std::vector<char> guard(2 * kGuard + offset + bytes, static_cast<char>(0xff));
  block_ = static_cast<char*>(device_allocate(guard.size()));
  copy_to_device(block_, guard.data(), guard.size());
  if (bytes > 0) copy_to_device(this->data(), data, bytes);
}
GuardedBytes::~GuardedBytes() { device_free(block_); }
void* GuardedBytes::data() const { return block_ + kGuard + offset_; }
void GuardedBytes::read(void* to) const {
  if (bytes_ > 0) copy_to_host(to, data(), bytes_);
}
bool GuardedBytes::guards_intact() const {
  std::vector<char> all(2 * kGuard + offset_ + bytes_);
  copy_to_host(all.data(), block_, all.size());
  const auto intact = [](char c) { return c == static_cast<char>(0xff); };
  return std::all_of(all.begin(), all.begin() + kGuard + offset_, intact) &&
         std::all_of(all.end() - kGuard, all.end(), intact);
}

Array::Array(Dtype dtype, const std::vector<double>& numbers, std::size_t shift)
    : dtype_(dtype),
      values_(decode(dtype, encode(dtype, numbers))),
      bytes_(encode(dtype, numbers).data(), numbers.size() * size_of(dtype),
             shift * size_of(dtype)) {}

std::vector<double> Array::read() const {
  EXPECT_TRUE(bytes_.guards_intact()) << "a kernel wrote outside its array";
  std::vector<char> bytes(values_.size() * size_of(dtype_));
  bytes_.read(bytes.data());
  return decode(dtype_, bytes);
}

Integers::Integers(std::vector<int64_t> values)
    : values_(std::move(values)), bytes_(values_.data(), values_.size() * sizeof(int64_t), 0) {}

std::vector<double> random_numbers(std::size_t count, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<double> numbers(count);
  for (double& number : numbers) number = normal(engine);
  return numbers;
}

std::vector<double> zeros(std::size_t count) { return std::vector<double>(count); }

void expect_near(const Array& array, const std::vector<double>& expected, double tolerance,
                 const std::string& what) {
  const std::vector<double> actual = array.read();
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double scale = 0, worst = 0;
  std::size_t place = 0;
  for (const double value : expected) scale = std::max(scale, std::abs(value));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]);
    if (error > worst || !(error == error)) {
      worst = error == error ? error : INFINITY;
      place = i;
    }
    if (!std::isfinite(worst)) break;
  }
  EXPECT_LE(worst, tolerance * (scale > 0 ? scale : 1.0))
      << what << ": at " << place << " " << actual[place] << " instead of " << expected[place];
}

std::string describe(Dtype dtype, int64_t rows, int64_t width) {
  return std::string(dtype == Dtype::kFloat32 ? "float32" : "bfloat16") + " [" +
         std::to_string(rows) + ", " + std::to_string(width) + "]";
}

}  // namespace qianli::testing
