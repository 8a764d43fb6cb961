// Decays, triangular products and substitution inside a chunk. Matrices of a chunk have rows of
// kChunk elements. Include per target.
#if defined(QIANLI_OPS_CPU_CHUNK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QIANLI_OPS_CPU_CHUNK_INL_H_
#undef QIANLI_OPS_CPU_CHUNK_INL_H_
#else
#define QIANLI_OPS_CPU_CHUNK_INL_H_
#endif

#include "qianli/ops/cpu/chunks.h"
#include "qianli/ops/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

HWY_INLINE int64_t vectors_of(int64_t columns) { return divide_up(columns, lanes()); }

// The left factor of a product: element (m, k) at at[m * row + k * column].
struct Left {
  const float* at;
  int64_t row, column;
};
HWY_INLINE Left rows_of(const float* at, int64_t row) { return {at, row, 1}; }
HWY_INLINE Left columns_of(const float* at, int64_t row) { return {at, 1, row}; }

// A row-major matrix whose rows are padded to whole vectors.
struct Matrix {
  float* at;
  int64_t row;
  HWY_INLINE Matrix from(int64_t first) const { return {at + first * row, row}; }
};

// Which part of the left factor is not zero, or which part of the result is wanted.
enum class Part {
  kAll,
  kLower,         // left(m, k) = 0 for k > m
  kUpper,         // left(m, k) = 0 for k < m
  kLowerOfResult  // columns behind the diagonal may hold anything
};

enum class Into { kSet, kAdd };

// c = a b or c += a b or, with scale, c = diag(scale) c + a b; a: [rows, inner], b: [inner,
// columns].
HWY_INLINE void multiply(Part part, Left a, Matrix b, Into into, Matrix c, int64_t rows,
                         int64_t inner, int64_t columns, const float* scale = nullptr) {
  const Product p{.a = a.at,
                  .a_row = a.row,
                  .a_column = a.column,
                  .b = b.at,
                  .b_row = b.row,
                  .c = c.at,
                  .c_row = c.row,
                  .accumulate = into == Into::kAdd,
                  .scale = scale};
  const int64_t vectors = vectors_of(columns);
  product(p, rows, [&](int64_t m, int64_t count) QIANLI_LAMBDA {
    Span span{0, inner, 0, vectors};
    if (part == Part::kLower) span.k_end = std::min(inner, m + count);
    if (part == Part::kUpper) span.k_begin = std::min(inner, m);
    if (part == Part::kLowerOfResult) span.v_end = std::min(vectors, vectors_of(m + count));
    return span;
  });
}

// x[i] += sum over j < i of m[i, j] x[j], in the order of i. m: strictly lower triangular.
HWY_INLINE void substitute_forward(const float* m, Matrix x, int64_t count, int64_t columns) {
  for (int64_t begin = 0; begin < count; begin += kMaxRows) {
    const int64_t rows = std::min<int64_t>(kMaxRows, count - begin);
    const Matrix block = x.from(begin);
    if (begin > 0) {
      multiply(Part::kAll, rows_of(m + begin * kChunk, kChunk), x, Into::kAdd, block, rows, begin,
               columns);
    }
    const float* corner = m + begin * kChunk + begin;
    for (int64_t v = 0; v < columns; v += lanes()) {
      for (int64_t i = 1; i < rows; ++i) {
        V sum = hn::LoadU(F(), block.at + i * block.row + v);
        for (int64_t j = 0; j < i; ++j) {
          sum = hn::MulAdd(set(corner[i * kChunk + j]),
                           hn::LoadU(F(), block.at + j * block.row + v), sum);
        }
        hn::StoreU(sum, F(), block.at + i * block.row + v);
      }
    }
  }
}

// x[j] += sum over i > j of m[i, j] x[i], from the last j to the first.
HWY_INLINE void substitute_backward(const float* m, Matrix x, int64_t count, int64_t columns) {
  for (int64_t end = count; end > 0;) {
    const int64_t rows = std::min<int64_t>(kMaxRows, end), begin = end - rows;
    const Matrix block = x.from(begin);
    if (end < count) {
      multiply(Part::kAll, columns_of(m + end * kChunk + begin, kChunk), x.from(end), Into::kAdd,
               block, rows, count - end, columns);
    }
    const float* corner = m + begin * kChunk + begin;
    for (int64_t v = 0; v < columns; v += lanes()) {
      for (int64_t j = rows - 2; j >= 0; --j) {
        V sum = hn::LoadU(F(), block.at + j * block.row + v);
        for (int64_t i = j + 1; i < rows; ++i) {
          sum = hn::MulAdd(set(corner[i * kChunk + j]),
                           hn::LoadU(F(), block.at + i * block.row + v), sum);
        }
        hn::StoreU(sum, F(), block.at + j * block.row + v);
      }
    }
    end = begin;
  }
}

// The decays of one head in one chunk. With s_i the sum of the exponents of rows 0 … i:
struct Decay {
  float high[kChunk], low[kChunk];  // s_i in two parts: differences of large sums stay accurate
  float from_start[kChunk];         // exp(s_i): of the state before the chunk
  float to_end[kChunk];             // exp(s_last - s_i): of row i in the state behind the chunk
  float whole;                      // exp(s_last)

  // exponent(i) <= 0 for 0 <= i < count.
  template <class Exponent>
  HWY_INLINE void fill(int64_t count, const Exponent& exponent) {
    double sum = 0.0;
    for (int64_t i = 0; i < kChunk; ++i) {
      if (i < count) sum += exponent(i);
      high[i] = static_cast<float>(sum);
      low[i] = static_cast<float>(sum - high[i]);
    }
    const V last_high = set(high[kChunk - 1]), last_low = set(low[kChunk - 1]);
    for (int64_t i = 0; i < kChunk; i += lanes()) {
      const V h = hn::LoadU(F(), high + i), l = hn::LoadU(F(), low + i);
      hn::StoreU(exp_bounded(hn::Add(h, l)), F(), from_start + i);
      const V rest = hn::Add(hn::Sub(last_high, h), hn::Sub(last_low, l));
      hn::StoreU(exp_bounded(hn::Min(rest, zero())), F(), to_end + i);
    }
    whole = from_start[kChunk - 1];
  }

  // exp(s_i - s_j) for the columns j … j + lanes() - 1, zero where j > i.
  HWY_INLINE V between(int64_t i, int64_t j) const {
    const V h = hn::Sub(set(high[i]), hn::LoadU(F(), high + j));
    const V l = hn::Sub(set(low[i]), hn::LoadU(F(), low + j));
    const V decay = exp_bounded(hn::Min(hn::Add(h, l), zero()));
    return j + lanes() <= i + 1 ? decay : first_lanes(decay, std::max<int64_t>(0, i + 1 - j));
  }
};

// The rows of a chunk as far as products read them: whole vectors that hold columns [0, count).
HWY_INLINE int64_t padded_columns(int64_t count) { return vectors_of(count) * lanes(); }

// decay(i, j) as a matrix, zero above the diagonal.
HWY_INLINE void decay_matrix(const Decay& decay, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < padded_columns(count); j += lanes()) {
      hn::StoreU(j > i ? zero() : decay.between(i, j), F(), to + i * kChunk + j);
    }
  }
}

// to = scores * decay * factor(i, j) for the lower triangle, zero above it. The diagonal of a
// strictly lower matrix is zero too.
template <class Factor>
HWY_INLINE void mix(const float* scores, const float* decay, int64_t count, bool strictly,
                    const Factor& factor, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < padded_columns(count); j += lanes()) {
      V value = zero();
      if (j <= i) {
        value = hn::Mul(hn::LoadU(F(), scores + i * kChunk + j),
                        hn::LoadU(F(), decay + i * kChunk + j));
        // What lies above the diagonal of the scores was never computed.
        value = hn::Mul(value, factor(i, j));
        if (j + lanes() > i) value = first_lanes(value, i + (strictly ? 0 : 1) - j);
      }
      hn::StoreU(value, F(), to + i * kChunk + j);
    }
  }
}

// to[r] = factor(r) from[r] for float32 rows of `columns` elements; both padded to whole vectors.
template <class Factor>
HWY_INLINE void scale_rows(Matrix from, int64_t rows, int64_t columns, const Factor& factor,
                           Matrix to) {
  for (int64_t r = 0; r < rows; ++r) {
    const V f = set(factor(r));
    for (int64_t v = 0; v < columns; v += lanes()) {
      hn::StoreU(hn::Mul(f, hn::LoadU(F(), from.at + r * from.row + v)), F(),
                 to.at + r * to.row + v);
    }
  }
}

// Of padded float32 rows; lanes behind `columns` are left out.
HWY_INLINE float dot(const float* a, const float* b, int64_t columns) {
  V sum = zero();
  each_vector(columns, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    sum = hn::MulAdd(load(a + i, n), load(b + i, n), sum);
  });
  return sum_of(sum);
}

template <class T>
HWY_INLINE void store_rows(Matrix from, int64_t rows, int64_t columns, T* to, int64_t to_row) {
  for (int64_t r = 0; r < rows; ++r) {
    each_vector(columns, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      store(hn::LoadU(F(), from.at + r * from.row + i), to + r * to_row + i, n);
    });
  }
}

// Collects the gradients of a head's exponents in one chunk. An exponent acts on everything that
// passes it on the way from an earlier row to a later one. These passages are added up as such, and
// not by differences of what enters and leaves, which would lose float32's digits.
class ExponentGradients {
 public:
  void clear(int64_t count) {
    count_ = count;
    std::fill_n(crossing_, count, 0.0);
    std::fill_n(from_start_, count, 0.0);
  }
  // Passages from row j to row i > j: weights(i, j) grads(i, j), lower triangular matrices.
  HWY_INLINE void add_crossing(const float* weights, const float* grads) {
    for (int64_t i = 1; i < count_; ++i) {
      double passed = 0.0;
      for (int64_t t = 1; t <= i; ++t) {
        const int64_t at = i * kChunk + t - 1;
        passed += static_cast<double>(weights[at]) * grads[at];
        crossing_[t] += passed;
      }
    }
  }
  // From the state before the chunk to row i, and from row i to the state behind the chunk.
  void add_from_start(int64_t i, double value) { from_start_[i] += value; }
  void set_to_end(int64_t i, double value) { to_end_[i] = value; }
  // `through`: from the state before the chunk to the one behind it.
  void store(double through, float* to, int64_t stride) const {
    double later[kChunk + 1], earlier = through;
    later[count_] = 0.0;
    for (int64_t i = count_ - 1; i >= 0; --i) later[i] = later[i + 1] + from_start_[i];
    for (int64_t i = 0; i < count_; ++i) {
      to[i * stride] = static_cast<float>(crossing_[i] + later[i] + earlier);
      earlier += to_end_[i];
    }
  }

 private:
  int64_t count_ = 0;
  double crossing_[kChunk], from_start_[kChunk], to_end_[kChunk];
};

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
