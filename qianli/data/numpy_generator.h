// numpy.random.default_rng(seed), as far as mixing of data sets draws from it, bit for bit.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qianli::data {

// PCG64 (a 128-bit linear congruential generator with XSL-RR output), seeded by SeedSequence.
class NumpyGenerator {
 public:
  explicit NumpyGenerator(uint64_t seed);

  uint64_t bits();
  // Uniform in [0, 1): Generator.random.
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  // An index, each with its probability: one draw of Generator.choice(n, p=probabilities).
  // `cumulative`: cumulative_probabilities.
  size_t choice(std::span<const double> cumulative);

 private:
  void step();

  using Word = unsigned __int128;
  Word state_ = 0, increment_ = 0;
};

// Running sums, divided by the last one.
std::vector<double> cumulative_probabilities(std::span<const double> probabilities);

}  // namespace qianli::data
