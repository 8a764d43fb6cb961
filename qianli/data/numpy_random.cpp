#include "qianli/data/numpy_random.h"

#include <bit>
#include <limits>

namespace qianli::data {

uint64_t RandomState::draw(uint64_t limit) {
  if (limit == 0) return 0;
  const uint64_t mask = ~uint64_t{0} >> std::countl_zero(limit);
  uint64_t value;
  if (limit <= std::numeric_limits<uint32_t>::max()) {
    do {
      value = engine_() & mask;
    } while (value > limit);
    return value;
  }
  do {
    const uint64_t high = engine_();
    value = (high << 32 | engine_()) & mask;
  } while (value > limit);
  return value;
}

double numpy_sum(std::span<const double> values) {
  const size_t count = values.size();
  if (count > 128) {
    const size_t half = count / 2 / 8 * 8;
    return numpy_sum(values.first(half)) + numpy_sum(values.subspan(half));
  }
  double sum = 0;
  size_t done = 0;
  if (count >= 8) {
    double r[8];
    for (; done < 8; ++done) r[done] = values[done];
    for (; done + 8 <= count; done += 8) {
      for (size_t k = 0; k < 8; ++k) r[k] += values[done + k];
    }
    sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
  }
  for (; done < count; ++done) sum += values[done];
  return sum;
}

}  // namespace qianli::data
