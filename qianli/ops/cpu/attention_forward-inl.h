// The steps of one tile of the attention forward pass: loading queries, scores, softmax, output.
// Include per target.
#if defined(QIANLI_OPS_CPU_ATTENTION_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QIANLI_OPS_CPU_ATTENTION_FORWARD_INL_H_
#undef QIANLI_OPS_CPU_ATTENTION_FORWARD_INL_H_
#else
#define QIANLI_OPS_CPU_ATTENTION_FORWARD_INL_H_
#endif

#include <limits>

#include "qianli/ops/cpu/attention.h"
#include "qianli/ops/cpu/attention_dropout-inl.h"
#include "qianli/ops/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// Stands for the maximum over no keys: finite, so that differences stay defined.
constexpr float kNoMaximum = -1e30f;
// Keys are asked for this long before their use; values one block of keys before.
constexpr int64_t kKeysAhead = 16;
constexpr int64_t kFewColumns = 8;

// Turns one vector of columns of S^T [keys][kTileQueries] into exponentials and updates the running
// maximum, sum and rescaling factor. Invisible scores, which may never have been computed, become
// 0.
HWY_INLINE void softmax_columns(const ForwardTile& tile, int64_t key, int64_t keys, int64_t column,
                                float* scores, const Partial& running, float* rescale) {
  const Sequence& s = tile.sequence;
  const int64_t first = tile.query + column / tile.heads;
  const int64_t last = tile.query + std::min(column + lanes() - 1, tile.columns() - 1) / tile.heads;
  // Keys [begin, end) are seen by some query of the vector, [all_begin, all_end) by all of them.
  const int64_t begin = std::clamp<int64_t>(s.first_key(first) - key, 0, keys);
  const int64_t end = std::clamp<int64_t>(s.end_key(last) - key, begin, keys);
  const int64_t all_begin = s.first_key(last) - key, all_end = s.end_key(first) - key;

  float* at = scores + column;
  const V old_max = load(running.max + column);
  V max = old_max;
  for (int64_t j = begin; j < end; ++j) {
    V score = load(at + j * kTileQueries);
    if (HWY_UNLIKELY(j < all_begin || j >= all_end)) {
      // Columns [from, to) of the tile see this key.
      const int64_t from = std::clamp<int64_t>(
          (s.first_query(key + j) - tile.query) * tile.heads - column, 0, lanes());
      const int64_t to = std::clamp<int64_t>(
          (s.end_query(key + j) - tile.query) * tile.heads - column, from, lanes());
      const auto seen = hn::AndNot(hn::FirstN(F(), static_cast<size_t>(from)),
                                   hn::FirstN(F(), static_cast<size_t>(to)));
      score = hn::IfThenElse(seen, score, set(-std::numeric_limits<float>::infinity()));
      store(score, at + j * kTileQueries);
    }
    max = hn::Max(max, score);
  }
  V sum = zero();
  for (int64_t j = 0; j < begin; ++j) store(zero(), at + j * kTileQueries);
  for (int64_t j = begin; j < end; ++j) {
    const V p = exp2_bounded(hn::Sub(load(at + j * kTileQueries), max));
    store(p, at + j * kTileQueries);
    sum = hn::Add(sum, p);
  }
  for (int64_t j = end; j < keys; ++j) store(zero(), at + j * kTileQueries);
  const V factor = exp2_bounded(hn::Sub(old_max, max));
  store(hn::MulAdd(load(running.sum + column), factor, sum), running.sum + column);
  store(max, running.max + column);
  store(factor, rescale + column);
}

// Rows of keys or values: the caller's, or copies in a tile's memory.
template <class T>
struct Rows {
  const T* at;
  int64_t stride;
};

// S^T = K Q^T for the keys [key, key + keys) of the sequence.
template <class T>
HWY_INLINE void tile_scores(const AttentionForward& a, const ForwardTile& tile, int64_t key,
                            int64_t keys, const Rows<T>& rows, const float* q_t, float* k_copy,
                            float* scores) {
  const Sequence& s = tile.sequence;
  Product p{.a = nullptr,
            .a_row = rows.stride,
            .a_column = 1,
            .b = q_t,
            .b_row = kTileQueries,
            .c = scores,
            .c_row = kTileQueries,
            .accumulate = false,
            .scale = nullptr};
  if constexpr (sizeof(T) == sizeof(float)) {
    p.a = rows.at;
  } else {
    p.a_row = padded(a.head_dim);
    copy_rows(rows.at, rows.stride, keys, a.head_dim, p.a_row, k_copy);
    p.a = k_copy;
  }
  const int64_t vectors = divide_up(tile.columns(), lanes());
  product(p, keys, [&](int64_t m, int64_t count) QIANLI_LAMBDA {
    const int64_t from = (s.first_query(key + m) - tile.query) * tile.heads;
    const int64_t to = (s.end_query(key + m + count - 1) - tile.query) * tile.heads;
    const int64_t v_begin = std::clamp<int64_t>(from / lanes(), 0, vectors);
    return Span{0, a.head_dim, v_begin,
                std::clamp<int64_t>(divide_up(to, lanes()), v_begin, vectors)};
  });
}

// The same for a few columns, q row-major [column][padded head_dim]: dot products along the head,
// which do not leave most lanes of S^T idle. kKeys keys times kColumns columns share the loads of
// both.
template <class T, int kKeys, int kColumns>
HWY_INLINE void score_dots(const T* rows, int64_t row, const float* q, int64_t q_row, int64_t size,
                           float* scores) {
  V sum[kKeys][kColumns];
  QIANLI_UNROLL for (int j = 0; j < kKeys; ++j) {
    QIANLI_UNROLL for (int c = 0; c < kColumns; ++c) sum[j][c] = zero();
  }
  each_vector(size, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    V k[kKeys];
    QIANLI_UNROLL for (int j = 0; j < kKeys; ++j) k[j] = load(rows + j * row + i, n);
    QIANLI_UNROLL for (int c = 0; c < kColumns; ++c) {
      const V element = load(q + c * q_row + i);
      QIANLI_UNROLL for (int j = 0; j < kKeys; ++j) {
        sum[j][c] = hn::MulAdd(k[j], element, sum[j][c]);
      }
    }
  });
  QIANLI_UNROLL for (int j = 0; j < kKeys; ++j) {
    QIANLI_UNROLL for (int c = 0; c < kColumns; ++c) {
      scores[j * kTileQueries + c] = sum_of(sum[j][c]);
    }
  }
}

template <class T>
HWY_INLINE void tile_scores_of_few(const AttentionForward& a, const ForwardTile& tile, int64_t keys,
                                   const Rows<T>& rows, const Rows<T>& values, const float* q,
                                   float* scores) {
  const int64_t d = padded(a.head_dim), row = rows.stride, size = a.head_dim;
  const int64_t columns = tile.columns();
  for (int64_t j = 0; j < keys;) {
    const int64_t count = j + 2 <= keys ? 2 : 1;
    prefetch_rows(rows.at + (j + kKeysAhead) * row, row, count, size);
    prefetch_rows(values.at + j * values.stride, values.stride, count, a.value_dim);
    for (int64_t c = 0; c < columns;) {
      float* at = scores + j * kTileQueries + c;
      const T* k = rows.at + j * row;
      const float* from = q + c * d;
      const int64_t width = c + 4 <= columns ? 4 : 1;
      if (count == 2 && width == 4) score_dots<T, 2, 4>(k, row, from, d, size, at);
      if (count == 2 && width == 1) score_dots<T, 2, 1>(k, row, from, d, size, at);
      if (count == 1 && width == 4) score_dots<T, 1, 4>(k, row, from, d, size, at);
      if (count == 1 && width == 1) score_dots<T, 1, 1>(k, row, from, d, size, at);
      c += width;
    }
    j += count;
  }
}

// The softcap and the slopes of ALiBi on S^T; scores that no one sees may be anything.
HWY_NOINLINE static void adjust_scores(const AttentionForward& a, const ForwardTile& tile,
                                       int64_t key, int64_t keys, float* scores) {
  float slopes[kTileQueries] = {}, positions[kTileQueries] = {};
  for (int64_t c = 0; a.slopes && c < tile.columns(); ++c) {
    slopes[c] = a.slopes[tile.head + c % tile.heads] * static_cast<float>(kLog2E);
    positions[c] = static_cast<float>(tile.query + c / tile.heads + tile.sequence.offset);
  }
  const V cap = set(static_cast<float>(a.softcap * kLog2E));
  for (int64_t c = 0; c < tile.columns(); c += lanes()) {
    const V slope = load(slopes + c), position = load(positions + c);
    for (int64_t j = 0; j < keys; ++j) {
      V score = load(scores + j * kTileQueries + c);
      if (a.softcap > 0.0) score = hn::Mul(cap, tanh_of(score));
      score = hn::MulAdd(slope, hn::Sub(set(static_cast<float>(key + j)), position), score);
      store(score, scores + j * kTileQueries + c);
    }
  }
}

// Scores of keys that the caller did not choose become -infinity. `key` is a multiple of 64.
HWY_INLINE void hide_unchosen(const ForwardTile& tile, int64_t key, int64_t keys, float* scores) {
  for (int64_t i = 0; i < tile.queries; ++i) {
    uint64_t hidden = ~tile.mask[(tile.query + i) * tile.mask_words + key / kTileKeys];
    if (keys < kTileKeys) hidden &= (uint64_t{1} << keys) - 1;
    for (; hidden != 0; hidden &= hidden - 1) {
      float* row = scores + __builtin_ctzll(hidden) * kTileQueries + i * tile.heads;
      std::fill_n(row, tile.heads, -std::numeric_limits<float>::infinity());
    }
  }
}

// Probabilities of keys that dropout takes away become 0; what stays is scaled at the end.
HWY_INLINE void drop_probabilities(const AttentionForward& a, const ForwardTile& tile, int64_t key,
                                   int64_t keys, float* probabilities) {
  KeptKeys kept;
  find_kept(a, {tile.sequence, tile.query, tile.queries, tile.head, tile.heads, key, keys}, kept);
  for (int64_t column = 0; column < tile.columns(); column += lanes()) {
    for (int64_t j = 0; j < keys; ++j) {
      float* at = probabilities + j * kTileQueries + column;
      const Words own = hn::LoadU(U(), (j < 32 ? kept.low : kept.high) + column);
      const auto stays = hn::TestBit(own, words(uint32_t{1} << (j % 32)));
      store(hn::IfThenElseZero(hn::RebindMask(F(), stays), load(at)), at);
    }
  }
}

// out = diag(rescale) out + P V
template <class T>
HWY_INLINE void tile_output(const AttentionForward& a, const ForwardTile& tile, int64_t key,
                            int64_t keys, const Rows<T>& rows, const float* probabilities,
                            float* v_copy, const Partial& running, const float* rescale,
                            bool accumulate) {
  const Sequence& s = tile.sequence;
  const int64_t dv = padded(a.value_dim);
  const int64_t vectors = divide_up(a.value_dim, lanes());
  const auto span = [&](int64_t m, int64_t count) QIANLI_LAMBDA {
    const int64_t first_query = tile.query + m / tile.heads;
    const int64_t last_query = tile.query + (m + count - 1) / tile.heads;
    const int64_t k_begin = std::clamp<int64_t>(s.first_key(first_query) - key, 0, keys);
    return Span{k_begin, std::clamp<int64_t>(s.end_key(last_query) - key, k_begin, keys), 0,
                vectors};
  };
  // A copy pays when more than two strips of queries read the values. Picked rows are copies.
  const bool few_strips = tile.columns() <= 2 * kMaxRows && a.value_dim % lanes() == 0;
  if (few_strips || tile.picks) {
    return product(ProductWith<T>{.a = probabilities,
                                  .a_row = 1,
                                  .a_column = kTileQueries,
                                  .b = rows.at,
                                  .b_row = rows.stride,
                                  .c = running.out,
                                  .c_row = dv,
                                  .accumulate = accumulate,
                                  .scale = rescale},
                   tile.columns(), span);
  }
  copy_rows(rows.at, rows.stride, keys, a.value_dim, dv, v_copy);
  product(Product{.a = probabilities,
                  .a_row = 1,
                  .a_column = kTileQueries,
                  .b = v_copy,
                  .b_row = dv,
                  .c = running.out,
                  .c_row = dv,
                  .accumulate = accumulate,
                  .scale = rescale},
          tile.columns(), span);
}

// The scale of the scores, and with it the change to the base 2 or the division by the cap.
inline float query_factor(const AttentionForward& a) {
  return static_cast<float>(a.scale * (a.softcap > 0.0 ? 1.0 / a.softcap : kLog2E));
}

template <class T>
HWY_INLINE void load_queries_transposed(const AttentionForward& a, const ForwardTile& tile,
                                        float* q_t) {
  const T* q = static_cast<const T*>(a.q) + (tile.sequence.q_start + tile.query) * a.q_stride +
               tile.head * a.q_head_stride;
  const float factor = query_factor(a);
  const int64_t padded_columns = divide_up(tile.columns(), lanes()) * lanes();
  if (tile.heads == 1) {
    transpose(q, a.q_stride, tile.columns(), padded_columns, a.head_dim, factor, q_t, kTileQueries);
  } else {
    for (int64_t i = 0; i < tile.queries; ++i) {
      const int64_t column = i * tile.heads;
      transpose(q + i * a.q_stride, a.q_head_stride, tile.heads,
                i + 1 == tile.queries ? padded_columns - column : tile.heads, a.head_dim, factor,
                q_t + column, kTileQueries);
    }
  }
}

template <class T>
HWY_INLINE void load_query_rows(const AttentionForward& a, const ForwardTile& tile, float* rows) {
  const V factor = set(query_factor(a));
  for (int64_t c = 0; c < tile.columns(); ++c) {
    const int64_t row = tile.sequence.q_start + tile.query + c / tile.heads;
    const T* q = static_cast<const T*>(a.q) + row * a.q_stride +
                 (tile.head + c % tile.heads) * a.q_head_stride;
    float* to = rows + c * padded(a.head_dim);
    each_vector(a.head_dim, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      hn::StoreU(hn::Mul(load(q + i, n), factor), F(), to + i);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
