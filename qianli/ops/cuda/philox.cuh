// The generator behind dropout (kernels.h): Philox4x32-10, a block per call.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "qianli/ops/kernels.h"

namespace qianli::ops::cuda {

struct DropoutBlock {
  uint32_t words[4];
};

// Of the group with this counter.
inline __device__ DropoutBlock dropout_block(const Dropout& dropout, uint64_t origin,
                                             uint32_t group, uint32_t fourth) {
  uint32_t c[4] = {static_cast<uint32_t>(origin), static_cast<uint32_t>(origin >> 32), group,
                   fourth};
  uint32_t k0 = static_cast<uint32_t>(dropout.key), k1 = static_cast<uint32_t>(dropout.key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t{0xD2511F53u} * c[0], second = uint64_t{0xCD9E8D57u} * c[2];
    c[0] = static_cast<uint32_t>(second >> 32) ^ c[1] ^ k0;
    c[1] = static_cast<uint32_t>(second);
    c[2] = static_cast<uint32_t>(first >> 32) ^ c[3] ^ k1;
    c[3] = static_cast<uint32_t>(first);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c[0], c[1], c[2], c[3]}};
}

// What neighbour i of a group is multiplied by.
inline __device__ float dropout_factor(const Dropout& dropout, const DropoutBlock& block,
                                       uint32_t i) {
  const uint32_t bits = block.words[i / 2] >> (i % 2 * 16) & 0xffff;
  return bits < dropout.threshold ? 0.0f : static_cast<float>(dropout.scale);
}

}  // namespace qianli::ops::cuda
