// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). A value is a pure function of (key, index), so any rank can make any slice of a
// tensor and every layout starts equal.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace qianli {

std::array<uint32_t, 4> philox4x32(uint64_t key, uint64_t counter_low, uint64_t counter_high);

// Key of a stream: mixes a seed with a name (a parameter's name, a purpose).
uint64_t random_key(uint64_t seed, std::string_view name);

// Uniform in [0, 1) with 53 bits, the index-th of the stream.
double uniform_at(uint64_t key, uint64_t index);
// Standard normal, the index-th of the stream (Box-Muller on two of the four words).
double normal_at(uint64_t key, uint64_t index);
// Fills out[i] = mean + scale * normal_at(key, first + i).
void fill_normal(uint64_t key, uint64_t first, uint64_t count, double mean, double scale,
                 float* out);

}  // namespace qianli
