// Rows of tokens on their way to experts and back.
#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/permute.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// One token's sum, a vector at a time, so that it stays in a register over the choices.
template <class T>
void combine_range(const CombineRows& a, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const int64_t* rows = a.rows + t * a.slots;
    const float* weights = a.weights ? a.weights + t * a.slots : nullptr;
    each_vector(a.width, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      V sum = zero();
      for (int64_t s = 0; s < a.slots; ++s) {
        if (rows[s] < 0) continue;
        const V x = load(static_cast<const T*>(a.x) + rows[s] * a.width + i, n);
        sum = weights ? hn::MulAdd(set(weights[s]), x, sum) : hn::Add(x, sum);
      }
      store(sum, static_cast<T*>(a.y) + t * a.width + i, n);
    });
  }
}

// Reads a choice's row and the token's gradient once, for both results.
template <class T>
void combine_backward_range(const CombineRowsBackward& a, int64_t begin, int64_t end) {
  const CombineRows& f = a.forward;
  for (int64_t t = begin; t < end; ++t) {
    const T* grad_y = static_cast<const T*>(a.grad_y) + t * f.width;
    for (int64_t s = t * f.slots; s < (t + 1) * f.slots; ++s) {
      const int64_t row = f.rows[s];
      V dot = zero();
      if (row >= 0) {
        const V weight = set(f.weights[s]);
        const T* x = static_cast<const T*>(f.x) + row * f.width;
        T* grad_x = static_cast<T*>(a.grad_x) + row * f.width;
        each_vector(f.width, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
          const V grad = load(grad_y + i, n);
          dot = hn::MulAdd(grad, load(x + i, n), dot);
          store(hn::Mul(weight, grad), grad_x + i, n);
        });
      }
      a.grad_weights[s] = sum_of(dot);
    }
  }
}

void CombineRange(const CombineRows& a, int64_t begin, int64_t end) {
  if (a.dtype == Dtype::kFloat32) return combine_range<float>(a, begin, end);
  combine_range<uint16_t>(a, begin, end);
}

void CombineBackwardRange(const CombineRowsBackward& a, int64_t begin, int64_t end) {
  if (a.forward.dtype == Dtype::kFloat32) return combine_backward_range<float>(a, begin, end);
  combine_backward_range<uint16_t>(a, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cstring>

namespace qianli::ops::cpu {

HWY_EXPORT(CombineRange);
HWY_EXPORT(CombineBackwardRange);

void gather_rows(const GatherRows& args, Stream) {
  const int64_t bytes = args.width * (args.dtype == Dtype::kFloat32 ? 4 : 2);
  parallel_ranges(args.rows, row_grain(args.width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::memcpy(static_cast<char*>(args.y) + row * bytes,
                  static_cast<const char*>(args.x) + args.tokens[row] * bytes, bytes);
    }
  });
}

void combine_rows(const CombineRows& args, Stream) {
  parallel_ranges(args.tokens, row_grain(args.width * args.slots), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(CombineRange)(args, begin, end);
  });
}

void combine_rows_backward(const CombineRowsBackward& args, Stream) {
  const CombineRows& f = args.forward;
  parallel_ranges(f.tokens, row_grain(f.width * f.slots), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(CombineBackwardRange)(args, begin, end);
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
