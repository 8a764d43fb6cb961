// The rule of dropout (qianli/ops/kernels.h), said once more with the generator of the base.
#pragma once

#include "qianli/base/random.h"
#include "qianli/ops/kernels.h"

namespace qianli::testing {

inline bool stays(const ops::Dropout& dropout, uint64_t origin, uint64_t element, uint32_t fourth) {
  const auto words = philox4x32(dropout.key, origin, element / 8 | uint64_t{fourth} << 32);
  return (words[element % 8 / 2] >> (element % 2 * 16) & 0xffff) >= dropout.threshold;
}

}  // namespace qianli::testing
