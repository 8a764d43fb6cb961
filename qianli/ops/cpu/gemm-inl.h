// Products of small matrices that lie in cache: the core of the attention kernels.
// Include after simd-inl.h, per target.
#if defined(QIANLI_OPS_CPU_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QIANLI_OPS_CPU_GEMM_INL_H_
#undef QIANLI_OPS_CPU_GEMM_INL_H_
#else
#define QIANLI_OPS_CPU_GEMM_INL_H_
#endif

#include <hwy/cache_control.h>

#include <algorithm>

#include "qianli/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// A block of C of kRows rows and up to kMaxVectors vectors is kept in registers: 6 x 4
// accumulators, 4 vectors of B and one broadcast element of A fill 29 of 32 registers, 6 x 2 fill
// 15 of 16.
constexpr int kMaxRows = 6;
#if HWY_ARCH_ARM_A64 || (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3)
constexpr int kMaxVectors = 4;
#else
constexpr int kMaxVectors = 2;
#endif

// C = A B, C = C + A B or C = diag(scale) C + A B, with B and C row-major and the elements (m, k)
// of A at a[m * a_row + k * a_column]. Rows of B and C are padded to whole vectors. B may be
// bfloat16.
template <class T>
struct ProductWith {
  const float* a;
  int64_t a_row, a_column;
  const T* b;
  int64_t b_row;
  float* c;
  int64_t c_row;
  bool accumulate;
  const float* scale;  // with accumulate: factor of each row of C, or null
};
using Product = ProductWith<float>;

// The part of the product that a strip of rows needs: k in [k_begin, k_end), vectors of C in
// [v_begin, v_end).
struct Span {
  int64_t k_begin, k_end, v_begin, v_end;
};

template <int kRows, int kVectors, class T>
HWY_INLINE void product_block(const ProductWith<T>& p, int64_t m, int64_t v, int64_t k_begin,
                              int64_t k_end) {
  const int64_t step = lanes();
  float* c = p.c + m * p.c_row + v * step;
  V sum[kRows][kVectors];
  QIANLI_UNROLL for (int r = 0; r < kRows; ++r) {
    QIANLI_UNROLL for (int j = 0; j < kVectors; ++j) {
      sum[r][j] = p.accumulate ? hn::LoadU(F(), c + r * p.c_row + j * step) : zero();
    }
  }
  if (p.accumulate && p.scale) {
    QIANLI_UNROLL for (int r = 0; r < kRows; ++r) {
      const V factor = set(p.scale[m + r]);
      QIANLI_UNROLL for (int j = 0; j < kVectors; ++j) sum[r][j] = hn::Mul(sum[r][j], factor);
    }
  }
  const float* a = p.a + m * p.a_row + k_begin * p.a_column;
  const T* b = p.b + k_begin * p.b_row + v * step;
  for (int64_t k = k_begin; k < k_end; ++k, a += p.a_column, b += p.b_row) {
    V row[kVectors];
    QIANLI_UNROLL for (int j = 0; j < kVectors; ++j) row[j] = load(b + j * step);
    QIANLI_UNROLL for (int r = 0; r < kRows; ++r) {
      const V element = set(a[r * p.a_row]);
      QIANLI_UNROLL for (int j = 0; j < kVectors; ++j) {
        sum[r][j] = hn::MulAdd(element, row[j], sum[r][j]);
      }
    }
  }
  QIANLI_UNROLL for (int r = 0; r < kRows; ++r) {
    QIANLI_UNROLL for (int j = 0; j < kVectors; ++j) {
      hn::StoreU(sum[r][j], F(), c + r * p.c_row + j * step);
    }
  }
}

template <int kRows, class T>
HWY_NOINLINE void product_strip(const ProductWith<T>& p, int64_t m, const Span& span) {
  int64_t v = span.v_begin;
  for (; v + kMaxVectors <= span.v_end; v += kMaxVectors) {
    product_block<kRows, kMaxVectors>(p, m, v, span.k_begin, span.k_end);
  }
  if constexpr (kMaxVectors > 2) {
    if (v + 2 <= span.v_end) {
      product_block<kRows, 2>(p, m, v, span.k_begin, span.k_end);
      v += 2;
    }
  }
  if (v < span.v_end) product_block<kRows, 1>(p, m, v, span.k_begin, span.k_end);
}

// Computes `rows` rows of the product in strips; span(m, count) tells what rows [m, m + count)
// need.
template <class T, class SpanOf>
HWY_INLINE void product(const ProductWith<T>& p, int64_t rows, const SpanOf& span) {
  int64_t m = 0;
  for (; m + kMaxRows <= rows; m += kMaxRows) product_strip<kMaxRows>(p, m, span(m, kMaxRows));
  if (m + 4 <= rows) {
    product_strip<4>(p, m, span(m, 4));
    m += 4;
  }
  if (m + 2 <= rows) {
    product_strip<2>(p, m, span(m, 2));
    m += 2;
  }
  if (m < rows) product_strip<1>(p, m, span(m, 1));
}

#if HWY_TARGET != HWY_SCALAR
using F4 = hn::FixedTag<float, 4>;
HWY_INLINE hn::Vec<F4> load4(const float* from) { return hn::LoadU(F4(), from); }
HWY_INLINE hn::Vec<F4> load4(const uint16_t* from) {
  const hn::Rebind<uint32_t, F4> u;
  const hn::Rebind<uint16_t, F4> h;
  return hn::BitCast(F4(), hn::ShiftLeft<16>(hn::PromoteTo(u, hn::LoadU(h, from))));
}

// A 4 x 4 block of transpose().
template <class T>
HWY_INLINE void transpose4(const T* from, int64_t from_row, float factor, float* to,
                           int64_t to_row) {
  const F4 d;
  const auto scale = hn::Set(d, factor);
  const auto r0 = hn::Mul(load4(from), scale), r1 = hn::Mul(load4(from + from_row), scale);
  const auto r2 = hn::Mul(load4(from + 2 * from_row), scale);
  const auto r3 = hn::Mul(load4(from + 3 * from_row), scale);
  const auto low01 = hn::InterleaveLower(d, r0, r1), low23 = hn::InterleaveLower(d, r2, r3);
  const auto high01 = hn::InterleaveUpper(d, r0, r1), high23 = hn::InterleaveUpper(d, r2, r3);
  hn::StoreU(hn::ConcatLowerLower(d, low23, low01), d, to);
  hn::StoreU(hn::ConcatUpperUpper(d, low23, low01), d, to + to_row);
  hn::StoreU(hn::ConcatLowerLower(d, high23, high01), d, to + 2 * to_row);
  hn::StoreU(hn::ConcatUpperUpper(d, high23, high01), d, to + 3 * to_row);
}
#endif

// to[c * to_row + r] = factor * from[r * from_row + c]; rows [rows, padded_rows) are taken as zero.
template <class T>
HWY_NOINLINE void transpose(const T* from, int64_t from_row, int64_t rows, int64_t padded_rows,
                            int64_t columns, float factor, float* to, int64_t to_row) {
  for (int64_t r = 0; r < padded_rows;) {
    const int64_t count = r + 4 <= rows ? 4 : 1;
    int64_t c = 0;
#if HWY_TARGET != HWY_SCALAR
    for (; count == 4 && c + 4 <= columns; c += 4) {
      transpose4(from + r * from_row + c, from_row, factor, to + c * to_row + r, to_row);
    }
#endif
    for (; c < columns; ++c) {
      for (int64_t i = r; i < r + count; ++i) {
        to[c * to_row + i] =
            i < rows ? factor * hn::GetLane(load(from + i * from_row + c, 1)) : 0.0f;
      }
    }
    r += count;
  }
}

// Asks for rows that will be read soon. Heads lie far apart in memory, often in different pages,
// where the hardware's own prefetching stops.
template <class T>
HWY_INLINE void prefetch_rows(const T* from, int64_t from_row, int64_t rows, int64_t columns) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; c += kLine) hwy::Prefetch(from + r * from_row + c);
  }
}

// float32 rows of `padded` elements, zero behind `columns`.
template <class T>
HWY_INLINE void copy_rows(const T* from, int64_t from_row, int64_t rows, int64_t columns,
                          int64_t padded, float* to) {
  for (int64_t r = 0; r < rows; ++r) {
    float* row = to + r * padded;
    each_vector(columns, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      hn::StoreU(load(from + r * from_row + i, n), F(), row + i);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
