#include "qianli/data/numpy_generator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

namespace qianli::data {
namespace {

// numpy.random.SeedSequence(seed).generate_state(4, uint64), of a seed of at most 64 bits.
class SeedSequence {
 public:
  explicit SeedSequence(uint64_t seed) {
    const uint32_t entropy[4] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), 0,
                                 0};
    for (size_t i = 0; i < 4; ++i) pool_[i] = hashed(entropy[i]);
    for (size_t source = 0; source < 4; ++source) {
      for (size_t target = 0; target < 4; ++target) {
        if (source != target) pool_[target] = mixed(pool_[target], hashed(pool_[source]));
      }
    }
  }

  std::array<uint64_t, 4> state() const {
    std::array<uint64_t, 4> words{};
    uint32_t constant = 0x8b51f9dd;
    for (size_t i = 0; i < 8; ++i) {
      uint32_t value = pool_[i % 4] ^ constant;
      constant *= 0x58f38ded;
      value *= constant;
      value ^= value >> 16;
      words[i / 2] |= uint64_t{value} << (i % 2 * 32);
    }
    return words;
  }

 private:
  uint32_t hashed(uint32_t value) {
    value ^= constant_;
    constant_ *= 0x931e8875;
    value *= constant_;
    return value ^ value >> 16;
  }
  static uint32_t mixed(uint32_t x, uint32_t y) {
    const uint32_t result = 0xca01f9dd * x - 0x4973f715 * y;
    return result ^ result >> 16;
  }

  uint32_t constant_ = 0x43b0d7e5;
  uint32_t pool_[4];
};

}  // namespace

NumpyGenerator::NumpyGenerator(uint64_t seed) {
  const auto words = SeedSequence(seed).state();
  increment_ = (Word{words[2]} << 64 | words[3]) << 1 | 1;
  step();
  state_ += Word{words[0]} << 64 | words[1];
  step();
}

void NumpyGenerator::step() {
  constexpr Word kMultiplier = Word{0x2360ED051FC65DA4} << 64 | 0x4385DF649FCCF645;
  state_ = state_ * kMultiplier + increment_;
}

uint64_t NumpyGenerator::bits() {
  step();
  const auto folded = static_cast<uint64_t>(state_ >> 64) ^ static_cast<uint64_t>(state_);
  return std::rotr(folded, static_cast<int>(state_ >> 122));
}

size_t NumpyGenerator::choice(std::span<const double> cumulative) {
  const auto above = std::upper_bound(cumulative.begin(), cumulative.end(), uniform());
  return static_cast<size_t>(above - cumulative.begin());
}

std::vector<double> cumulative_probabilities(std::span<const double> probabilities) {
  std::vector<double> sums(probabilities.size());
  std::partial_sum(probabilities.begin(), probabilities.end(), sums.begin());
  for (double& sum : sums) sum /= sums.back();
  return sums;
}

}  // namespace qianli::data
