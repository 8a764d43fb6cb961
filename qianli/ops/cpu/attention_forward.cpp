// Attention forward: tiles of queries against blocks of keys with a running softmax (the flash
// attention scheme, Dao et al. 2022).
//
// A tile's scores are kept transposed, S^T [key][query], so that one vector holds one key's scores
// of many queries: the softmax runs along memory without any reduction across lanes, and keys are
// read straight from the caller's rows. For short queries the heads that share a key head lie side
// by side in one tile, so that the keys and values are read once for all of them.
#include <vector>

#include "qianli/ops/cpu/attention.h"
#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/attention_forward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

template <class T>
void forward_tile(const AttentionForward& a, const ForwardTile& tile, float* memory,
                  Partial running) {
  const TileMemory m = TileMemory::start<T>(a, tile, memory, running);
  const int64_t kv_head = tile.head / (a.query_heads / a.key_heads);
  bool started = false;
  for (int64_t key = tile.key_begin; key < tile.key_end; key += kTileKeys) {
    if (!any_chosen(tile.mask, tile.mask_words, tile.query, tile.queries, key)) continue;
    const int64_t keys = std::min(kTileKeys, tile.key_end - key), row = tile.sequence.k_start + key;
    attend(a, tile, m, key, keys, rows_from<T>(a.k, row, a.k_stride, kv_head, a.k_head_stride),
           rows_from<T>(a.v, row, a.v_stride, kv_head, a.v_head_stride), running, started);
    started = true;
  }
  if (!started) std::fill_n(running.out, tile.columns() * padded(a.value_dim), 0.0f);
}

// The same where the one query of the tile has a list of keys: their rows are gathered in blocks.
template <class T>
void forward_picked_tile(const AttentionForward& a, const ForwardTile& tile, float* memory,
                         Partial running) {
  const TileMemory m = TileMemory::start<T>(a, tile, memory, running);
  const int64_t kv_head = tile.head / (a.query_heads / a.key_heads);
  const int64_t d = padded(a.head_dim), dv = padded(a.value_dim);
  const int64_t first = tile.sequence.first_key(tile.query),
                end = tile.sequence.end_key(tile.query);
  // Inside a block every row is seen.
  ForwardTile block = tile;
  block.sequence = {0, 1, 0, kTileKeys, kTileKeys - 1, /*causal=*/false, /*window=*/0};
  block.query = 0;
  bool started = false;
  for (int64_t next = tile.key_begin; next < tile.key_end;) {
    int64_t count = 0;
    for (; next < tile.key_end && count < kTileKeys; ++next) {
      const int64_t key = tile.picks[next];
      if (key < first || key >= end) continue;
      const int64_t row = tile.sequence.k_start + key;
      const auto k = rows_from<T>(a.k, row, a.k_stride, kv_head, a.k_head_stride);
      const auto v = rows_from<T>(a.v, row, a.v_stride, kv_head, a.v_head_stride);
      copy_rows(k.at, 0, 1, a.head_dim, d, m.k_copy + count * d);
      copy_rows(v.at, 0, 1, a.value_dim, dv, m.v_copy + count * dv);
      ++count;
    }
    if (count == 0) continue;
    attend(a, block, m, 0, count, Rows<float>{m.k_copy, d}, Rows<float>{m.v_copy, dv}, running,
           started);
    started = true;
  }
  if (!started) std::fill_n(running.out, tile.columns() * dv, 0.0f);
}

void AttentionTile(const AttentionForward& a, const ForwardTile& tile, float* memory,
                   Partial running) {
  const bool wide = a.dtype == Dtype::kFloat32;
  if (tile.picks) {
    return wide ? forward_picked_tile<float>(a, tile, memory, running)
                : forward_picked_tile<uint16_t>(a, tile, memory, running);
  }
  if (wide) return forward_tile<float>(a, tile, memory, running);
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
  ChosenMask mask;
  std::vector<int64_t>& first;

  int64_t queries(int64_t s) const { return args.q_starts[s + 1] - args.q_starts[s]; }
  // Chosen keys are gathered where queries are few, so that what nobody chose is never read.
  bool picks(int64_t s) const {
    return args.chosen && !args.slopes && args.dropout.threshold == 0 && queries(s) < kTileQueries;
  }
  // Heads of a key head that lie side by side in the tiles of this sequence.
  int64_t heads(int64_t s) const {
    if (queries(s) >= kTileQueries) return 1;
    const int64_t group = args.query_heads / args.key_heads;
    int64_t heads = std::min(group, kTileQueries);
    while (group % heads != 0) --heads;
    return heads;
  }
  int64_t tile_queries(int64_t s) const { return picks(s) ? 1 : kTileQueries / heads(s); }
  int64_t blocks(int64_t s) const { return divide_up(queries(s), tile_queries(s)); }

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
                     .key_end = 0,
                     .mask = nullptr,
                     .mask_words = mask.words,
                     .picks = nullptr};
    tile.queries = std::min(width, tile.sequence.q_len - tile.query);
    if (picks(s)) {
      tile.picks = args.chosen + (tile.sequence.q_start + tile.query) * args.chosen_count;
      tile.key_end = args.chosen_count;
      return tile;
    }
    tile.mask = mask.row(tile.sequence.q_start);
    tile.key_begin = tile.sequence.first_key(tile.query);
    if (tile.mask) tile.key_begin = tile.key_begin / kTileKeys * kTileKeys;
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
  const int64_t work = tile_floats(args);
  parallel_tasks(tiles, [&](int64_t index) {
    float* memory = scratch(Slot::kTask, static_cast<size_t>(work + partial_floats(args)));
    const ForwardTile tile = tiling.tile(index);
    HWY_DYNAMIC_DISPATCH(AttentionTile)(args, tile, memory, partial_at(memory + work, args));
    HWY_DYNAMIC_DISPATCH(AttentionFinish)(args, tile, memory + work, 1);
  });
}

void run_divided_tiles(const AttentionForward& args, const Tiling& tiling, int64_t tiles,
                       int64_t parts) {
  const int64_t size = partial_floats(args);
  float* partials = scratch(Slot::kShared, static_cast<size_t>(tiles * parts * size));
  parallel_tasks(tiles * parts, [&](int64_t index) {
    float* memory = scratch(Slot::kTask, static_cast<size_t>(tile_floats(args)));
    ForwardTile tile = tiling.tile(index / parts);
    const int64_t blocks = divide_up(tile.key_end - tile.key_begin, kTileKeys),
                  part = index % parts;
    const int64_t end = tile.key_begin + blocks * (part + 1) / parts * kTileKeys;
    tile.key_begin += blocks * part / parts * kTileKeys;
    tile.key_end = std::min(tile.key_end, end);
    HWY_DYNAMIC_DISPATCH(AttentionTile)
    (args, tile, memory, partial_at(partials + index * size, args));
  });
  parallel_tasks(tiles, [&](int64_t index) {
    HWY_DYNAMIC_DISPATCH(AttentionFinish)
    (args, tiling.tile(index), partials + index * parts * size, parts);
  });
}

}  // namespace

ChosenMask chosen_mask(const AttentionForward& a) {
  if (!a.chosen) return {};
  int64_t longest = 0;
  for (int64_t s = 0; s < a.sequences; ++s) {
    longest = std::max(longest, a.k_starts[s + 1] - a.k_starts[s]);
  }
  const int64_t words = std::max<int64_t>(1, divide_up(longest, kTileKeys));
  const int64_t rows = a.q_starts[a.sequences];
  auto* bits =
      reinterpret_cast<uint64_t*>(scratch(Slot::kMask, static_cast<size_t>(2 * rows * words)));
  parallel_ranges(rows, row_grain(a.chosen_count), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      uint64_t* to = bits + row * words;
      std::fill_n(to, words, uint64_t{0});
      for (int64_t i = 0; i < a.chosen_count; ++i) {
        const int64_t key = a.chosen[row * a.chosen_count + i];
        if (key >= 0 && key < words * kTileKeys) to[key / 64] |= uint64_t{1} << (key % 64);
      }
    }
  });
  return {bits, words};
}

void attention_forward(const AttentionForward& args, Stream) {
  thread_local std::vector<int64_t> first;
  Tiling tiling{.args = args, .mask = {}, .first = first};
  bool masked = false;
  for (int64_t s = 0; s < args.sequences; ++s) masked = masked || !tiling.picks(s);
  if (masked) tiling.mask = chosen_mask(args);
  tiling.count();
  const int64_t tiles = first.back();
  if (tiles == 0) return;
  const int64_t parts = parts_per_tile(args, tiles);
  if (parts == 1) return run_whole_tiles(args, tiling, tiles);
  run_divided_tiles(args, tiling, tiles, parts);
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
