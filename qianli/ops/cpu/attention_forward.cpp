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

#include "qianli/ops/cpu/attention_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

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
  const int64_t kv_column = tile.head / (a.query_heads / a.key_heads) * a.head_dim;
  const T* k = static_cast<const T*>(a.k) + tile.sequence.k_start * a.k_stride + kv_column;
  const T* v = static_cast<const T*>(a.v) + tile.sequence.k_start * a.v_stride + kv_column;
  for (int64_t key = tile.key_begin; key < tile.key_end; key += kTileKeys) {
    const int64_t keys = std::min(kTileKeys, tile.key_end - key);
    if (few) {
      tile_scores_of_few(a, tile, keys, k + key * a.k_stride, v + key * a.v_stride, q_t, scores);
    } else {
      tile_scores(a, tile, key, keys, k + key * a.k_stride, q_t, k_copy, scores);
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
