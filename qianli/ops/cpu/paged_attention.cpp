// A tile is one query's heads on one key head; its keys come block by block. Where tiles are fewer
// than threads, the blocks of each are dealt out and the parts added in order.
#include "qianli/ops/cpu/paged_attention.h"

#include <vector>

#include "qianli/ops/cpu/attention.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/paged_attention.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// Of the keys [tile.key_begin, tile.key_end), the first at the start of a block.
template <class T>
void paged_tile(const PagedAttention& p, const AttentionForward& a, const ForwardTile& tile,
                float* memory, const Partial& running) {
  const TileMemory m = TileMemory::start<T>(a, tile, memory, running);
  const int64_t kv_head = tile.head / (a.query_heads / a.key_heads);
  const int64_t* table = p.tables + tile.sequence.q_start * p.table_stride;
  for (int64_t key = tile.key_begin; key < tile.key_end; key += p.block_size) {
    const int64_t keys = std::min(p.block_size, tile.key_end - key);
    const int64_t block = table[key / p.block_size];
    const T* k = static_cast<const T*>(p.k) + block * p.k_block_stride + kv_head * p.k_head_stride;
    const T* v = static_cast<const T*>(p.v) + block * p.v_block_stride + kv_head * p.v_head_stride;
    attend(a, tile, m, key, keys, Rows<T>{k, p.k_stride}, Rows<T>{v, p.v_stride}, running,
           key != tile.key_begin);
  }
  if (tile.key_begin >= tile.key_end)
    std::fill_n(running.out, tile.columns() * padded(a.value_dim), 0.0f);
}

void PagedTile(const PagedAttention& p, const AttentionForward& a, const ForwardTile& tile,
               float* memory, const Partial& running) {
  if (p.dtype == Dtype::kFloat32) return paged_tile<float>(p, a, tile, memory, running);
  paged_tile<uint16_t>(p, a, tile, memory, running);
}

void PagedFinish(const AttentionForward& a, const ForwardTile& tile, float* partials,
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

HWY_EXPORT(PagedTile);
HWY_EXPORT(PagedFinish);

// What the tiles' code wants to know of a call whose keys are elsewhere.
AttentionForward queries_of(const PagedAttention& p) {
  return {.dtype = p.dtype,
          .sequences = 0,
          .q_starts = &p.rows,
          .k_starts = nullptr,
          .query_heads = p.query_heads,
          .key_heads = p.key_heads,
          .head_dim = p.head_dim,
          .value_dim = p.value_dim,
          .scale = p.scale,
          .softcap = p.softcap,
          .causal = true,
          .window = p.window,
          .slopes = p.slopes,
          .sinks = p.sinks,
          .q = p.q,
          .q_stride = p.q_stride,
          .q_head_stride = p.q_head_stride,
          .out = p.out,
          .lse = nullptr};
}

struct PagedTiles {
  const PagedAttention& args;
  int64_t heads;  // of a tile

  explicit PagedTiles(const PagedAttention& p)
      : args(p), heads(std::min(p.query_heads / p.key_heads, kTileQueries)) {
    while (p.query_heads / p.key_heads % heads != 0) --heads;
  }
  int64_t count() const { return args.rows * args.query_heads / heads; }
  ForwardTile tile(int64_t index) const {
    const int64_t per_row = args.query_heads / heads, row = index / per_row;
    const int64_t length = args.lengths[row];
    ForwardTile tile{.sequence = {.q_start = row,
                                  .q_len = 1,
                                  .k_start = 0,
                                  .k_len = length,
                                  .offset = length - 1,
                                  .causal = true,
                                  .window = args.window},
                     .query = 0,
                     .queries = 1,
                     .head = index % per_row * heads,
                     .heads = heads,
                     .key_begin = 0,
                     .key_end = length,
                     .mask = nullptr,
                     .mask_words = 0,
                     .picks = nullptr};
    tile.key_begin = tile.sequence.first_key(0) / args.block_size * args.block_size;
    return tile;
  }
};

// Into how many parts the keys of each tile are cut.
int64_t parts_of_tiles(const PagedAttention& p, int64_t tiles) {
  constexpr int64_t kKeysPerPart = 512;
  const int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  if (threads == 1 || tiles >= 2 * threads) return 1;
  const int64_t longest = *std::max_element(p.lengths, p.lengths + p.rows);
  return std::clamp<int64_t>(divide_up(2 * threads, tiles), 1,
                             std::max<int64_t>(1, longest / kKeysPerPart));
}

}  // namespace

void paged_attention(const PagedAttention& args) {
  const AttentionForward a = queries_of(args);
  const PagedTiles tiling(args);
  const int64_t tiles = tiling.count();
  if (tiles == 0) return;
  const int64_t parts = parts_of_tiles(args, tiles), size = partial_floats(a);
  float* partials = scratch(Slot::kShared, static_cast<size_t>(tiles * parts * size));
  parallel_tasks(tiles * parts, [&](int64_t index) {
    float* memory = scratch(Slot::kTask, static_cast<size_t>(tile_floats(a)));
    ForwardTile tile = tiling.tile(index / parts);
    const int64_t blocks = divide_up(tile.key_end - tile.key_begin, args.block_size);
    const int64_t part = index % parts;
    const int64_t end = tile.key_begin + blocks * (part + 1) / parts * args.block_size;
    tile.key_begin += blocks * part / parts * args.block_size;
    tile.key_end = std::min(tile.key_end, end);
    HWY_DYNAMIC_DISPATCH(PagedTile)
    (args, a, tile, memory, partial_at(partials + index * size, a));
  });
  parallel_tasks(tiles, [&](int64_t index) {
    HWY_DYNAMIC_DISPATCH(PagedFinish)
    (a, tiling.tile(index), partials + index * parts * size, parts);
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
