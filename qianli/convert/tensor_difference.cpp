#include "qianli/convert/tensor_difference.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace qianli::convert {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

// Without their sign, the bits of finite numbers are in the order of their magnitudes, below those
// of infinity and NaNs.
template <class T>
double largest_magnitude(std::span<const T> values) {
  using Bits = BitsOf<T>;
  constexpr Bits kSign = Bits{1} << (8 * sizeof(T) - 1);
  constexpr auto kInfinite = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  Bits largest = 0;
  for (const T value : values) {
    const Bits bits = std::bit_cast<Bits>(value) & ~kSign;
    largest = std::max(largest, bits < kInfinite ? bits : Bits{0});
  }
  return std::bit_cast<T>(largest);
}

template <class T>
Tally compare(std::span<const T> a, std::span<const T> b, int64_t first) {
  using Bits = BitsOf<T>;
  Tally tally{.magnitude = largest_magnitude(a)};
  if (std::memcmp(a.data(), b.data(), a.size_bytes()) == 0) return tally;
  tally.magnitude = std::max(tally.magnitude, largest_magnitude(b));
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<Bits>(a[i]) == std::bit_cast<Bits>(b[i])) continue;
    const ElementPair here{first + static_cast<int64_t>(i), a[i], b[i]};
    const double apart = distance(here.a, here.b);
    if (tally.differing++ == 0) tally.first = tally.worst = here;
    if (apart > tally.largest) tally.worst = here;
    tally.largest = std::max(tally.largest, apart);
  }
  return tally;
}

}  // namespace

double distance(double a, double b) {
  if (std::isnan(a) && std::isnan(b)) return 0;
  if (std::isfinite(a) && std::isfinite(b)) return std::abs(a - b);
  return a == b ? 0 : kInfinity;
}

void Tally::join(const Tally& later) {
  if (differing == 0) first = later.first;
  if (differing == 0 || later.largest > largest) worst = later.worst;
  differing += later.differing;
  largest = std::max(largest, later.largest);
  magnitude = std::max(magnitude, later.magnitude);
}

Tally compare_numbers(std::span<const float> a, std::span<const float> b, int64_t first) {
  return compare(a, b, first);
}

Tally compare_numbers(std::span<const double> a, std::span<const double> b, int64_t first) {
  return compare(a, b, first);
}

double TensorDifference::relative() const {
  if (!has_elements()) return kInfinity;
  return elements.largest == 0 ? 0 : elements.largest / elements.magnitude;
}

bool TensorDifference::within(double tolerance) const {
  if (!has_elements()) return false;
  return elements.differing == 0 ||
         (tolerance > 0 && elements.largest <= tolerance * elements.magnitude);
}

TensorDifference::Shape TensorDifference::index_of(const ElementPair& element) const {
  Shape index(shape_a->size());
  int64_t rest = element.at;
  for (size_t axis = index.size(); axis-- > 0; rest /= (*shape_a)[axis])
    index[axis] = rest % (*shape_a)[axis];
  return index;
}

}  // namespace qianli::convert
