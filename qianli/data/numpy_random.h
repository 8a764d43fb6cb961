// The pieces of NumPy that Megatron's sample order depends on, bit for bit.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <utility>

namespace qianli::data {

// numpy.random.RandomState(seed): MT19937 seeded with one 32-bit word.
class RandomState {
 public:
  explicit RandomState(uint32_t seed) : engine_(seed) {}

  // Uniform in [0, limit] by masking and rejection, as RandomState.shuffle draws it.
  uint64_t draw(uint64_t limit);

  // RandomState.shuffle of a one-dimensional array; the element type does not change the result.
  template <class T>
  void shuffle(std::span<T> values) {
    for (size_t i = values.size(); i-- > 1;) std::swap(values[i], values[draw(i)]);
  }

 private:
  std::mt19937 engine_;
};

// numpy.sum of float64: pairwise with eight running sums, so the last bit agrees.
double numpy_sum(std::span<const double> values);

}  // namespace qianli::data
