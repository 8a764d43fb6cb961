#include "qianli/base/random.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cmath>
#include <numbers>

namespace qianli {
namespace {

// Two 53-bit uniforms of one Philox block; the first lies in (0, 1], so that its logarithm is
// finite.
std::array<double, 2> uniform_pair(uint64_t key, uint64_t index) {
  const auto words = philox4x32(key, index, 0);
  const uint64_t a = (uint64_t{words[0]} << 32 | words[1]) >> 11;
  const uint64_t b = (uint64_t{words[2]} << 32 | words[3]) >> 11;
  return {static_cast<double>(a + 1) * 0x1p-53, static_cast<double>(b) * 0x1p-53};
}

}  // namespace

std::array<uint32_t, 4> philox4x32(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  std::array<uint32_t, 4> c{
      static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
      static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  auto k0 = static_cast<uint32_t>(key);
  auto k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kMultiplier0 * c[0];
    const uint64_t p1 = kMultiplier1 * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return c;
}

uint64_t random_key(uint64_t seed, std::string_view name) {
  return XXH3_64bits_withSeed(name.data(), name.size(), seed);
}

double uniform_at(uint64_t key, uint64_t index) {
  const auto words = philox4x32(key, index, 0);
  return static_cast<double>((uint64_t{words[0]} << 32 | words[1]) >> 11) * 0x1p-53;
}

double normal_at(uint64_t key, uint64_t index) {
  // One block gives two normals: index 2k and 2k+1 are its cosine and sine halves.
  const auto [u, v] = uniform_pair(key, index / 2);
  const double radius = std::sqrt(-2.0 * std::log(u));
  const double angle = 2.0 * std::numbers::pi * v;
  return index % 2 == 0 ? radius * std::cos(angle) : radius * std::sin(angle);
}

void fill_normal(uint64_t key, uint64_t first, uint64_t count, double mean, double scale,
                 float* out) {
  uint64_t i = 0;
  if (first % 2 == 1 && count > 0) {
    out[i++] = static_cast<float>(mean + scale * normal_at(key, first));
  }
  for (; i + 1 < count; i += 2) {
    const auto [u, v] = uniform_pair(key, (first + i) / 2);
    const double radius = scale * std::sqrt(-2.0 * std::log(u));
    const double angle = 2.0 * std::numbers::pi * v;
    out[i] = static_cast<float>(mean + radius * std::cos(angle));
    out[i + 1] = static_cast<float>(mean + radius * std::sin(angle));
  }
  if (i < count) out[i] = static_cast<float>(mean + scale * normal_at(key, first + i));
}

}  // namespace qianli
