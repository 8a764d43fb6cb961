// One tile of the attention forward pass from its memory to the stored output, wherever its keys
// lie. Include per target.
#if defined(QIANLI_OPS_CPU_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QIANLI_OPS_CPU_ATTENTION_TILE_INL_H_
#undef QIANLI_OPS_CPU_ATTENTION_TILE_INL_H_
#else
#define QIANLI_OPS_CPU_ATTENTION_TILE_INL_H_
#endif

#include <cmath>
#include <limits>

#include "qianli/ops/cpu/attention_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// Where the parts of a tile's memory begin (tile_floats).
struct TileMemory {
  float *q, *k_copy, *v_copy, *scores, *rescale;
  bool few;  // columns: queries lie in rows then, else transposed

  template <class T>
  static TileMemory start(const AttentionForward& a, const ForwardTile& tile, float* memory,
                          const Partial& running) {
    TileMemory m;
    m.q = memory;
    m.k_copy = m.q + kTileQueries * padded(a.head_dim);
    m.v_copy = m.k_copy + kTileKeys * padded(a.head_dim);
    m.scores = m.v_copy + kTileKeys * padded(a.value_dim);
    m.rescale = m.scores + kTileKeys * kTileQueries;
    m.few = tile.columns() <= kFewColumns;
    if (m.few) {
      load_query_rows<T>(a, tile, m.q);
      std::fill_n(m.scores, kTileKeys * kTileQueries, 0.0f);
    } else {
      load_queries_transposed<T>(a, tile, m.q);
    }
    std::fill_n(running.max, kTileQueries, kNoMaximum);
    std::fill_n(running.sum, kTileQueries, 0.0f);
    return m;
  }
};

// Adds the keys [key, key + keys) to the running result.
template <class T>
HWY_INLINE void attend(const AttentionForward& a, const ForwardTile& tile, const TileMemory& m,
                       int64_t key, int64_t keys, const Rows<T>& k, const Rows<T>& v,
                       const Partial& running, bool accumulate) {
  if (m.few) {
    tile_scores_of_few(a, tile, keys, k, v, m.q, m.scores);
  } else {
    tile_scores(a, tile, key, keys, k, m.q, m.k_copy, m.scores);
  }
  if (a.softcap > 0.0 || a.slopes) adjust_scores(a, tile, key, keys, m.scores);
  if (tile.mask) hide_unchosen(tile, key, keys, m.scores);
  for (int64_t column = 0; column < tile.columns(); column += lanes()) {
    softmax_columns(tile, key, keys, column, m.scores, running, m.rescale);
  }
  if (a.dropout.threshold > 0) drop_probabilities(a, tile, key, keys, m.scores);
  tile_output(a, tile, key, keys, v, m.scores, m.v_copy, running, m.rescale, accumulate);
}

template <class T>
Rows<T> rows_from(const void* base, int64_t row, int64_t row_stride, int64_t head,
                  int64_t head_stride) {
  return {static_cast<const T*>(base) + row * row_stride + head * head_stride, row_stride};
}

// Adds the partial results of one tile over different keys, in order, and the sinks; stores out and
// lse.
template <class T>
void finish_tile(const AttentionForward& a, const ForwardTile& tile, float* partials,
                 int64_t count) {
  const int64_t size = partial_floats(a), dv = padded(a.value_dim);
  const int64_t q_rows = a.q_starts[a.sequences];
  for (int64_t c = 0; c < tile.columns(); ++c) {
    const int64_t row = tile.sequence.q_start + tile.query + c / tile.heads;
    const int64_t head = tile.head + c % tile.heads;
    const float sink = a.sinks ? a.sinks[head] * static_cast<float>(kLog2E) : kNoMaximum;
    float max = sink, sum = a.sinks ? 1.0f : 0.0f;
    for (int64_t i = 0; i < count; ++i) {
      max = std::max(max, partial_at(partials + i * size, a).max[c]);
    }
    if (a.sinks) sum = std::exp2(sink - max);
    float* total = partials + c * dv;
    for (int64_t i = 0; i < count; ++i) {
      const Partial part = partial_at(partials + i * size, a);
      const float factor = part.max[c] == max ? 1.0f : std::exp2(part.max[c] - max);
      sum += factor * part.sum[c];
      if (count == 1 && factor == 1.0f) break;
      const float* from = part.out + c * dv;
      each_vector(a.value_dim, [&](int64_t j, int64_t n) QIANLI_LAMBDA {
        const V term = hn::Mul(load(from + j, n), set(factor));
        store(i == 0 ? term : hn::Add(load(total + j, n), term), total + j, n);
      });
    }
    const float inverse = sum == 0.0f ? 0.0f : static_cast<float>(a.dropout.scale) / sum;
    T* out = static_cast<T*>(a.out) + (row * a.query_heads + head) * a.value_dim;
    each_vector(a.value_dim, [&](int64_t j, int64_t n) QIANLI_LAMBDA {
      store(hn::Mul(load(total + j, n), set(inverse)), out + j, n);
    });
    if (!a.lse) continue;
    a.lse[head * q_rows + row] =
        sum == 0.0f ? -std::numeric_limits<float>::infinity()
                    : static_cast<float>(kLn2 * (static_cast<double>(max) + std::log2(sum)));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
