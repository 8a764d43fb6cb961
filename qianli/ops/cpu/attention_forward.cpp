// Attention forward: tiles of queries against blocks of keys with a running softmax (the flash
// attention scheme, Dao et al. 2022).
//
// A tile's scores are kept transposed, S^T [key][query], so that one vector holds one key's scores
// of many queries: the softmax runs along memory without any reduction across lanes, and keys are
// read straight from the caller's rows. For short queries the heads that share a key head lie side
// by side in one tile, so that the keys and values are read once for all of them.
#include <cmath>
#include <limits>
#include <vector>

#include "qianli/ops/cpu/attention.h"
#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/attention_forward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// Stands for the maximum over no keys: finite, so that differences stay defined.
constexpr float kNoMaximum = -1e30f;
constexpr int64_t kPrefetchColumns = 16;
constexpr int64_t kFewColumns = 8;

// Turns one vector of columns of S^T [keys][kTileQueries] into exponentials and updates the running
// maximum, sum and rescaling factor. Invisible scores, which may never have been computed, become
// 0.
HWY_INLINE void softmax_columns(const ForwardTile& tile, int64_t key, int64_t keys, int64_t column,
                                float* scores, Partial& running, float* rescale) {
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

// S^T = K Q^T for the keys [key, key + keys) of the sequence.
template <class T>
HWY_INLINE void tile_scores(const AttentionForward& a, const ForwardTile& tile, int64_t key,
                            int64_t keys, const T* rows, const float* q_t, float* k_copy,
                            float* scores) {
  const Sequence& s = tile.sequence;
  Product p{.a = nullptr,
            .a_row = a.k_stride,
            .a_column = 1,
            .b = q_t,
            .b_row = kTileQueries,
            .c = scores,
            .c_row = kTileQueries,
            .accumulate = false,
            .scale = nullptr};
  if constexpr (sizeof(T) == sizeof(float)) {
    p.a = rows;
  } else {
    p.a_row = padded_head_dim(a.head_dim);
    copy_rows(rows, a.k_stride, keys, a.head_dim, p.a_row, k_copy);
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
                                   const T* rows, const float* q, float* scores) {
  const int64_t d = padded_head_dim(a.head_dim), row = a.k_stride, size = a.head_dim;
  const int64_t columns = tile.columns();
  for (int64_t j = 0; j < keys;) {
    const int64_t count = j + 2 <= keys ? 2 : 1;
    for (int64_t c = 0; c < columns;) {
      float* at = scores + j * kTileQueries + c;
      const T* k = rows + j * row;
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

// out = diag(rescale) out + P V
template <class T>
HWY_INLINE void tile_output(const AttentionForward& a, const ForwardTile& tile, int64_t key,
                            int64_t keys, const T* rows, const float* probabilities, float* v_copy,
                            const Partial& running, const float* rescale) {
  const Sequence& s = tile.sequence;
  const int64_t padded = padded_head_dim(a.head_dim);
  Product p{.a = probabilities,
            .a_row = 1,
            .a_column = kTileQueries,
            .b = v_copy,
            .b_row = padded,
            .c = running.out,
            .c_row = padded,
            .accumulate = key != tile.key_begin,
            .scale = rescale};
  // A copy pays when more than two strips of queries read the values.
  bool direct = false;
  if constexpr (sizeof(T) == sizeof(float)) {
    direct = tile.columns() <= 2 * kMaxRows && a.head_dim % lanes() == 0;
    if (direct) {
      p.b = rows;
      p.b_row = a.v_stride;
    }
  }
  if (!direct) copy_rows(rows, a.v_stride, keys, a.head_dim, padded, v_copy);
  const int64_t vectors = divide_up(a.head_dim, lanes());
  product(p, tile.columns(), [&](int64_t m, int64_t count) QIANLI_LAMBDA {
    const int64_t first_query = tile.query + m / tile.heads;
    const int64_t last_query = tile.query + (m + count - 1) / tile.heads;
    const int64_t k_begin = std::clamp<int64_t>(s.first_key(first_query) - key, 0, keys);
    return Span{k_begin, std::clamp<int64_t>(s.end_key(last_query) - key, k_begin, keys), 0,
                vectors};
  });
}

// Queries carry the scale of the scores, to the base 2.
template <class T>
HWY_INLINE void load_queries_transposed(const AttentionForward& a, const ForwardTile& tile,
                                        float* q_t) {
  const T* q = static_cast<const T*>(a.q) + (tile.sequence.q_start + tile.query) * a.q_stride +
               tile.head * a.head_dim;
  const auto factor = static_cast<float>(a.scale * kLog2E);
  const int64_t padded_columns = divide_up(tile.columns(), lanes()) * lanes();
  if (tile.heads == 1) {
    transpose(q, a.q_stride, tile.columns(), padded_columns, a.head_dim, factor, q_t, kTileQueries);
  } else {
    for (int64_t i = 0; i < tile.queries; ++i) {
      const int64_t column = i * tile.heads;
      transpose(q + i * a.q_stride, a.head_dim, tile.heads,
                i + 1 == tile.queries ? padded_columns - column : tile.heads, a.head_dim, factor,
                q_t + column, kTileQueries);
    }
  }
}

template <class T>
HWY_INLINE void load_query_rows(const AttentionForward& a, const ForwardTile& tile, float* rows) {
  const V factor = set(static_cast<float>(a.scale * kLog2E));
  for (int64_t c = 0; c < tile.columns(); ++c) {
    const int64_t row = tile.sequence.q_start + tile.query + c / tile.heads;
    const T* q =
        static_cast<const T*>(a.q) + row * a.q_stride + (tile.head + c % tile.heads) * a.head_dim;
    float* to = rows + c * padded_head_dim(a.head_dim);
    each_vector(a.head_dim, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      hn::StoreU(hn::Mul(load(q + i, n), factor), F(), to + i);
    });
  }
}

template <class T>
void forward_tile(const AttentionForward& a, const ForwardTile& tile, float* memory,
                  Partial running) {
  const int64_t d = padded_head_dim(a.head_dim);
  float* q_t = memory;
  float* k_copy = q_t + kTileQueries * d;
  float* v_copy = k_copy + kTileKeys * d;
  float* scores = v_copy + kTileKeys * d;
  float* rescale = scores + kTileKeys * kTileQueries;
  const bool few = tile.columns() <= kFewColumns;
  if (few) {
    load_query_rows<T>(a, tile, q_t);
    std::fill_n(scores, kTileKeys * kTileQueries, 0.0f);
  } else {
    load_queries_transposed<T>(a, tile, q_t);
  }
  std::fill_n(running.max, kTileQueries, kNoMaximum);
  std::fill_n(running.sum, kTileQueries, 0.0f);
  if (tile.key_begin >= tile.key_end) std::fill_n(running.out, tile.columns() * d, 0.0f);
  // With few columns the work per key is small and memory decides: then values are asked for before
  // their block's scores are computed, and keys one block ahead.
  const bool ahead = tile.columns() <= kPrefetchColumns;
  const int64_t kv_column = tile.head / (a.query_heads / a.key_heads) * a.head_dim;
  const T* k = static_cast<const T*>(a.k) + tile.sequence.k_start * a.k_stride + kv_column;
  const T* v = static_cast<const T*>(a.v) + tile.sequence.k_start * a.v_stride + kv_column;
  for (int64_t key = tile.key_begin; key < tile.key_end; key += kTileKeys) {
    const int64_t keys = std::min(kTileKeys, tile.key_end - key);
    if (ahead) prefetch_rows(v + key * a.v_stride, a.v_stride, keys, a.head_dim);
    if (few) {
      tile_scores_of_few(a, tile, keys, k + key * a.k_stride, q_t, scores);
    } else {
      tile_scores(a, tile, key, keys, k + key * a.k_stride, q_t, k_copy, scores);
    }
    if (ahead) {
      const int64_t next = key + kTileKeys;
      prefetch_rows(k + next * a.k_stride, a.k_stride, std::min(kTileKeys, tile.key_end - next),
                    a.head_dim);
    }
    for (int64_t column = 0; column < tile.columns(); column += lanes()) {
      softmax_columns(tile, key, keys, column, scores, running, rescale);
    }
    tile_output(a, tile, key, keys, v + key * a.v_stride, scores, v_copy, running, rescale);
  }
}

// Adds the partial results of one tile over different keys, in order, and stores out and lse.
template <class T>
void finish_tile(const AttentionForward& a, const ForwardTile& tile, float* partials,
                 int64_t count) {
  const int64_t size = partial_floats(a.head_dim), d = padded_head_dim(a.head_dim);
  const int64_t q_rows = a.q_starts[a.sequences];
  for (int64_t c = 0; c < tile.columns(); ++c) {
    float max = kNoMaximum, sum = 0.0f;
    for (int64_t i = 0; i < count; ++i) {
      max = std::max(max, partial_at(partials + i * size, a.head_dim).max[c]);
    }
    float* total = partials + c * d;
    for (int64_t i = 0; i < count; ++i) {
      const Partial part = partial_at(partials + i * size, a.head_dim);
      const float factor = count == 1 ? 1.0f : std::exp2(part.max[c] - max);
      sum += factor * part.sum[c];
      if (count == 1) break;
      const float* from = part.out + c * d;
      each_vector(a.head_dim, [&](int64_t j, int64_t n) QIANLI_LAMBDA {
        const V term = hn::Mul(load(from + j, n), set(factor));
        store(i == 0 ? term : hn::Add(load(total + j, n), term), total + j, n);
      });
    }
    const int64_t row = tile.sequence.q_start + tile.query + c / tile.heads;
    const int64_t head = tile.head + c % tile.heads;
    const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    T* out = static_cast<T*>(a.out) + (row * a.query_heads + head) * a.head_dim;
    each_vector(a.head_dim, [&](int64_t j, int64_t n) QIANLI_LAMBDA {
      store(hn::Mul(load(total + j, n), set(inverse)), out + j, n);
    });
    if (!a.lse) continue;
    a.lse[head * q_rows + row] =
        sum == 0.0f ? -std::numeric_limits<float>::infinity()
                    : static_cast<float>(kLn2 * (static_cast<double>(max) + std::log2(sum)));
  }
}

void AttentionTile(const AttentionForward& a, const ForwardTile& tile, float* memory,
                   Partial running) {
  if (a.dtype == Dtype::kFloat32) return forward_tile<float>(a, tile, memory, running);
  forward_tile<uint16_t>(a, tile, memory, running);
}

void AttentionFinish(const AttentionForward& a, const ForwardTile& tile, float* partials,
                     int64_t count) {
  if (a.dtype == Dtype::kFloat32) return finish_tile<float>(a, tile, partials, count);
  finish_tile<uint16_t>(a, tile, partials, count);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {
namespace {

HWY_EXPORT(AttentionTile);
HWY_EXPORT(AttentionFinish);

// How a call is cut into tiles. first[s] is the number of tiles before sequence s.
struct Tiling {
  const AttentionForward& args;
  std::vector<int64_t>& first;

  int64_t group() const { return args.query_heads / args.key_heads; }
  // Heads that lie side by side in the tiles of this sequence.
  int64_t heads(int64_t s) const {
    const int64_t q_len = args.q_starts[s + 1] - args.q_starts[s];
    return q_len < kTileQueries && group() <= kTileQueries ? group() : 1;
  }
  int64_t tile_queries(int64_t s) const { return kTileQueries / heads(s); }
  int64_t blocks(int64_t s) const {
    return divide_up(args.q_starts[s + 1] - args.q_starts[s], tile_queries(s));
  }

  void count() {
    first.assign(1, 0);
    for (int64_t s = 0; s < args.sequences; ++s) {
      first.push_back(first.back() + blocks(s) * args.query_heads / heads(s));
    }
  }

  // Tiles of one head lie next to each other, the one with the most keys first.
  ForwardTile tile(int64_t index) const {
    const auto after = std::upper_bound(first.begin(), first.end(), index);
    const int64_t s = after - first.begin() - 1, within = index - first[static_cast<size_t>(s)];
    const int64_t block = blocks(s) - 1 - within % blocks(s), width = tile_queries(s);
    ForwardTile tile{.sequence = sequence_of(args, s),
                     .query = block * width,
                     .queries = 0,
                     .head = within / blocks(s) * heads(s),
                     .heads = heads(s),
                     .key_begin = 0,
                     .key_end = 0};
    tile.queries = std::min(width, tile.sequence.q_len - tile.query);
    tile.key_begin = tile.sequence.first_key(tile.query);
    tile.key_end = tile.sequence.end_key(tile.query + tile.queries - 1);
    return tile;
  }
};

// Few tiles over many keys (generation) leave threads idle: then each tile's keys are cut into
// parts.
int64_t parts_per_tile(const AttentionForward& args, int64_t tiles) {
  constexpr int64_t kKeysPerPart = 512;
  int64_t longest = 0;
  for (int64_t s = 0; s < args.sequences; ++s) {
    longest = std::max(longest, args.k_starts[s + 1] - args.k_starts[s]);
  }
  const int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  if (threads == 1 || tiles >= 2 * threads) return 1;
  return std::clamp<int64_t>(divide_up(2 * threads, tiles), 1,
                             std::max<int64_t>(1, longest / kKeysPerPart));
}

void run_whole_tiles(const AttentionForward& args, const Tiling& tiling, int64_t tiles) {
  const int64_t work = tile_floats(args.head_dim);
  parallel_tasks(tiles, [&](int64_t index) {
    float* memory = scratch(Slot::kTask, static_cast<size_t>(work + partial_floats(args.head_dim)));
    const ForwardTile tile = tiling.tile(index);
    HWY_DYNAMIC_DISPATCH(AttentionTile)
    (args, tile, memory, partial_at(memory + work, args.head_dim));
    HWY_DYNAMIC_DISPATCH(AttentionFinish)(args, tile, memory + work, 1);
  });
}

void run_divided_tiles(const AttentionForward& args, const Tiling& tiling, int64_t tiles,
                       int64_t parts) {
  const int64_t size = partial_floats(args.head_dim);
  float* partials = scratch(Slot::kShared, static_cast<size_t>(tiles * parts * size));
  parallel_tasks(tiles * parts, [&](int64_t index) {
    float* memory = scratch(Slot::kTask, static_cast<size_t>(tile_floats(args.head_dim)));
    ForwardTile tile = tiling.tile(index / parts);
    const int64_t blocks = divide_up(tile.key_end - tile.key_begin, kTileKeys),
                  part = index % parts;
    const int64_t end = tile.key_begin + blocks * (part + 1) / parts * kTileKeys;
    tile.key_begin += blocks * part / parts * kTileKeys;
    tile.key_end = std::min(tile.key_end, end);
    HWY_DYNAMIC_DISPATCH(AttentionTile)
    (args, tile, memory, partial_at(partials + index * size, args.head_dim));
  });
  parallel_tasks(tiles, [&](int64_t index) {
    HWY_DYNAMIC_DISPATCH(AttentionFinish)
    (args, tiling.tile(index), partials + index * parts * size, parts);
  });
}

}  // namespace

void attention_forward(const AttentionForward& args, Stream) {
  thread_local std::vector<int64_t> first;
  Tiling tiling{.args = args, .first = first};
  tiling.count();
  const int64_t tiles = first.back();
  if (tiles == 0) return;
  const int64_t parts = parts_per_tile(args, tiles);
  if (parts == 1) return run_whole_tiles(args, tiling, tiles);
  run_divided_tiles(args, tiling, tiles, parts);
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
