#pragma once

#include "tests/ops/cuda/bfloat16.h"

struct __nv_bfloat16 {
  std::uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) { return qianli::testing::from_bfloat16(x.bits); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {qianli::testing::to_bfloat16(x)}; }
