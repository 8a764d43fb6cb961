#include "qianli/convert/adapter/low_rank.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/convert/adapter/low_rank.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace qianli::convert {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

const hn::ScalableTag<float> kTag;

// Four vectors of the row from column j on.
HWY_INLINE void add_to_block(const float* factors, size_t rank, const float* matrix, size_t columns,
                             float scale, float* row) {
  const size_t lanes = hn::Lanes(kTag);
  auto s0 = hn::Zero(kTag), s1 = s0, s2 = s0, s3 = s0;
  for (size_t k = 0; k < rank; ++k) {
    const auto factor = hn::Set(kTag, factors[k]);
    const float* from = matrix + k * columns;
    s0 = hn::MulAdd(factor, hn::LoadU(kTag, from), s0);
    s1 = hn::MulAdd(factor, hn::LoadU(kTag, from + lanes), s1);
    s2 = hn::MulAdd(factor, hn::LoadU(kTag, from + 2 * lanes), s2);
    s3 = hn::MulAdd(factor, hn::LoadU(kTag, from + 3 * lanes), s3);
  }
  const auto by = hn::Set(kTag, scale);
  const auto add = [&](auto sum, float* to) HWY_ATTR {
    hn::StoreU(hn::Add(hn::LoadU(kTag, to), hn::Mul(sum, by)), kTag, to);
  };
  add(s0, row);
  add(s1, row + lanes);
  add(s2, row + 2 * lanes);
  add(s3, row + 3 * lanes);
}

// One column, with the operations of a lane.
HWY_INLINE void add_to_one(const float* factors, size_t rank, const float* matrix, size_t columns,
                           float scale, float* row) {
  const hn::CappedTag<float, 1> one;
  auto sum = hn::Zero(one);
  for (size_t k = 0; k < rank; ++k) {
    sum = hn::MulAdd(hn::Set(one, factors[k]), hn::LoadU(one, matrix + k * columns), sum);
  }
  hn::StoreU(hn::Add(hn::LoadU(one, row), hn::Mul(sum, hn::Set(one, scale))), one, row);
}

void AddLowRank(const float* factors, size_t rank, const float* matrix, size_t columns, float scale,
                float* row) {
  const size_t step = 4 * hn::Lanes(kTag);
  size_t j = 0;
  for (; j + step <= columns; j += step) {
    add_to_block(factors, rank, matrix + j, columns, scale, row + j);
  }
  for (; j < columns; ++j) add_to_one(factors, rank, matrix + j, columns, scale, row + j);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::convert
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::convert {

HWY_EXPORT(AddLowRank);

void add_low_rank(std::span<const float> factors, std::span<const float> matrix, float scale,
                  std::span<float> row) {
  HWY_DYNAMIC_DISPATCH(AddLowRank)
  (factors.data(), factors.size(), matrix.data(), row.size(), scale, row.data());
}

}  // namespace qianli::convert
#endif
