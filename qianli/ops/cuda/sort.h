// A stable sort of pairs on the device.
#pragma once

#include <cstdint>

#include "qianli/ops/kernels.h"

namespace qianli::ops::cuda {

// Sorts `count` pairs by key; pairs of equal keys keep their order. Keys must be below `key_limit`:
// only the bits that it needs are sorted. Outputs must not overlap inputs.
void sort_pairs(const uint32_t* keys, const uint32_t* values, uint32_t* sorted_keys,
                uint32_t* sorted_values, int64_t count, int64_t key_limit, Stream stream);

}  // namespace qianli::ops::cuda
