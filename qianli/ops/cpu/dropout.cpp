// Dropout of rows (kernels.h): the same call is its own backward pass.
#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/dropout.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/philox-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

template <class T>
void dropout_rows(const DropoutRows& a, int64_t begin, int64_t end) {
  const V scale = set(static_cast<float>(a.dropout.scale));
  const int64_t columns_at_once = lanes() * kDropoutGroup;
  uint32_t bytes[hn::MaxLanes(U())];
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(a.x) + row * a.width;
    T* y = static_cast<T*>(a.y) + row * a.width;
    const auto origin = static_cast<uint64_t>(a.origins[row]);
    for (int64_t column = 0; column < a.width; column += columns_at_once) {
      const auto first_group = static_cast<uint32_t>(column / kDropoutGroup);
      Words counter[4] = {words(static_cast<uint32_t>(origin)),
                          words(static_cast<uint32_t>(origin >> 32)), hn::Iota(U(), first_group),
                          words(0)};
      hn::StoreU(kept_of_group(a.dropout, counter), U(), bytes);
      const int64_t count = std::min(columns_at_once, a.width - column);
      // Sixteen columns are at least one vector.
      for (int64_t at = 0; at < count; at += 2 * kDropoutGroup) {
        const int64_t group = at / kDropoutGroup;
        const uint32_t next = group + 1 < lanes() ? bytes[group + 1] : 0;
        const uint64_t bits = bytes[group] | next << kDropoutGroup;
        each_vector(std::min(2 * kDropoutGroup, count - at),
                    [&](int64_t i, int64_t n) QIANLI_LAMBDA {
                      const int64_t j = column + at + i;
                      store(kept_values(hn::Mul(load(x + j, n), scale), bits, i), y + j, n);
                    });
      }
    }
  }
}

void DropoutRange(const DropoutRows& a, int64_t begin, int64_t end) {
  if (a.dtype == Dtype::kFloat32) return dropout_rows<float>(a, begin, end);
  dropout_rows<uint16_t>(a, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {

HWY_EXPORT(DropoutRange);

void dropout(const DropoutRows& args, Stream) {
  parallel_ranges(args.rows, row_grain(args.width), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(DropoutRange)(args, begin, end);
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
