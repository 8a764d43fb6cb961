// What the attention kernels share: which keys a query sees, and how the work is cut.
#pragma once

#include <algorithm>
#include <cstdint>

#include "qianli/ops/kernels.h"

namespace qianli::ops::cpu {

// Beyond every index, and safe to multiply by a number of heads.
inline constexpr int64_t kUnbounded = int64_t{1} << 44;

// One sequence: query i of q_len sees the keys [first_key(i), end_key(i)).
struct Sequence {
  int64_t q_start, q_len, k_start, k_len;
  int64_t offset;  // position of query 0, counted from key 0
  bool causal;
  int64_t window;
  int64_t origin = 0;  // of key 0, where the call has dropout

  int64_t end_key(int64_t query) const {
    return causal ? std::clamp<int64_t>(query + offset + 1, 0, k_len) : k_len;
  }
  int64_t first_key(int64_t query) const {
    return window > 0 ? std::clamp<int64_t>(query + offset + 1 - window, 0, k_len) : 0;
  }
  // The first query that sees `key`, and the one behind the last, both unclamped.
  int64_t first_query(int64_t key) const { return causal ? key - offset : -kUnbounded; }
  int64_t end_query(int64_t key) const { return window > 0 ? key - offset + window : kUnbounded; }
};

inline Sequence sequence_of(const AttentionForward& a, int64_t s) {
  const int64_t q_len = a.q_starts[s + 1] - a.q_starts[s],
                k_len = a.k_starts[s + 1] - a.k_starts[s];
  return {.q_start = a.q_starts[s],
          .q_len = q_len,
          .k_start = a.k_starts[s],
          .k_len = k_len,
          .offset = a.offsets ? a.offsets[s] : k_len - q_len,
          .causal = a.causal,
          .window = a.window,
          .origin = a.origins ? a.origins[s] : 0};
}

// Exponentials are taken to the base 2: scores carry this factor.
inline constexpr double kLog2E = 1.4426950408889634;
inline constexpr double kLn2 = 0.6931471805599453;

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline constexpr int64_t kTileQueries = 64;  // a multiple of every vector length
inline constexpr int64_t kTileKeys = 64;

// A tile: queries [query, query + queries) of a sequence for the heads [head, head + heads),
// against the keys [key_begin, key_end). Column c is query c / heads, head c % heads.
struct ForwardTile {
  Sequence sequence;
  int64_t query, queries, head, heads;
  int64_t key_begin, key_end;
  // Where the caller chose the keys of each query, one of these is set.
  const uint64_t*
      mask;  // bit j % 64 of word j / 64 of a query's row: it sees key j. Row of query 0
  int64_t mask_words;
  const int64_t* picks;  // keys of the one query are picks[key_begin, key_end), and no others

  int64_t columns() const { return queries * heads; }
};
static_assert(kTileKeys == 64);  // one word of a mask

// Unnormalised result of a tile: out [column][padded value_dim], the running maximum (base 2) and
// sum.
struct Partial {
  float *out, *max, *sum;
};
inline int64_t padded(int64_t dim) { return divide_up(dim, 16) * 16; }
inline int64_t partial_floats(const AttentionForward& a) {
  return kTileQueries * (padded(a.value_dim) + 2);
}
inline Partial partial_at(float* memory, const AttentionForward& a) {
  float* max = memory + kTileQueries * padded(a.value_dim);
  return {.out = memory, .max = max, .sum = max + kTileQueries};
}
// Q^T, K, V, S^T and the rescaling factors.
inline int64_t tile_floats(const AttentionForward& a) {
  const int64_t d = padded(a.head_dim), dv = padded(a.value_dim);
  return kTileQueries * d + kTileKeys * (d + dv) + kTileKeys * kTileQueries + kTileQueries;
}
// Backward: K, K^T, Q; V^T, dO; P, dS and the slopes of the cap; lse, delta.
inline int64_t backward_tile_floats(const AttentionForward& a) {
  return kTileKeys * (3 * padded(a.head_dim) + 2 * padded(a.value_dim)) +
         3 * kTileKeys * kTileQueries + 2 * kTileQueries;
}

// The chosen keys of a call as bits. Rows of all sequences have the same number of words.
struct ChosenMask {
  const uint64_t* bits = nullptr;
  int64_t words = 0;

  const uint64_t* row(int64_t q_row) const { return bits ? bits + q_row * words : nullptr; }
};
// In the thread's scratch memory for masks; empty where the call leaves all keys.
ChosenMask chosen_mask(const AttentionForward& a);

// A part of a dropout mask: queries [query, query + queries) of a sequence for the heads [head,
// head
// + heads), against the keys [key, key + keys), at most a tile's. Column c as in ForwardTile.
struct DropoutTile {
  const Sequence& sequence;
  int64_t query, queries, head, heads;
  int64_t key, keys;
};
// Bit j of the 64 of a column: it keeps key j. Of columns and keys that the tile has not, anything.
struct KeptKeys {
  uint32_t low[kTileQueries], high[kTileQueries];

  uint64_t of(int64_t column) const { return uint64_t{high[column]} << 32 | low[column]; }
};

// Whether some query of [query, query + queries) sees some key of the block of 64 at `key`.
inline bool any_chosen(const uint64_t* mask, int64_t words, int64_t query, int64_t queries,
                       int64_t key) {
  if (!mask) return true;
  uint64_t any = 0;
  for (int64_t i = 0; i < queries; ++i) any |= mask[(query + i) * words + key / kTileKeys];
  return any != 0;
}

}  // namespace qianli::ops::cpu
