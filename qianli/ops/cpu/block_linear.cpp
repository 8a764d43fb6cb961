#include "qianli/ops/cpu/block_linear.h"

#include <algorithm>
#include <cstring>

#include "qianli/ops/cpu/parallel.h"

#include <hwy/cache_control.h>

// The set with instructions for sums of products of bytes (VNNI), which Highway leaves out unless
// asked for.
#define HWY_WANT_AVX3_DL
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/block_linear.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/simd-inl.h"

#ifndef QIANLI_BLOCK_LINEAR_SHAPES
#define QIANLI_BLOCK_LINEAR_SHAPES
namespace qianli::ops::cpu {

constexpr int64_t kQuads = kBlockSize / 4;

inline int64_t blocks_of(int64_t columns) { return (columns + kBlockSize - 1) / kBlockSize; }
// Of one block of columns of a tile.
constexpr int64_t code_bytes(BlockCode code) {
  return kTileRows * kBlockSize / (code == BlockCode::kQ4_0 ? 2 : 1);
}
inline int64_t tile_bytes(const BlockMatrix& matrix) {
  const int64_t block =
      code_bytes(matrix.code) + kTileRows * static_cast<int64_t>(sizeof(uint16_t));
  return (blocks_of(matrix.in) * block + 63) / 64 * 64;
}
inline int64_t tiles_of(int64_t rows) { return (rows + kTileRows - 1) / kTileRows; }

// Rows of x as blocks of whole numbers: `codes` [rows, blocks, 32], of two bytes where the
// instruction set has no sums of products of bytes; then columns 1 and 2 of each 4 are swapped.
struct WholeRows {
  int64_t blocks;
  int8_t* codes;
  float* scales;  // [rows, blocks]
  int32_t* sums;  // [rows, blocks]
};

}  // namespace qianli::ops::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// A lane has 4 bytes, codes of neighbouring columns.
using Quads = hn::Vec<U>;

#if HWY_TARGET == HWY_AVX3_DL
using Code = int8_t;
constexpr int kOrder[4] = {0, 1, 2, 3};

// Adds to each lane the products of its 4 bytes with the same 4 numbers.
HWY_INLINE hn::Vec<I> add_quad(hn::Vec<I> sum, Quads bytes, const Code* numbers) {
  // Spelt out, because Highway 1.0 leaves avx512vnni out of what it allows the compiler here.
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(sum.raw)
      : "v"(bytes.raw), "m"(*reinterpret_cast<const int32_t*>(numbers)));
  return sum;
}
#else
using Code = int16_t;
constexpr int kOrder[4] = {0, 2, 1, 3};

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_SSE4
using W = hn::Repartition<int16_t, F>;

HWY_INLINE hn::Vec<I> add_quad(hn::Vec<I> sum, Quads bytes, const Code* numbers) {
  int32_t pairs[2];
  std::memcpy(pairs, numbers, sizeof pairs);
  const hn::Repartition<uint16_t, F> words;
  const auto both = hn::BitCast(words, bytes);
  const auto even = hn::BitCast(W(), hn::And(both, hn::Set(words, 0xff)));
  const auto odd = hn::BitCast(W(), hn::ShiftRight<8>(both));
  // On x86 a lane of the sum is that of neighbours, and the second sum stays as it is.
  hn::Vec<I> unused = hn::Zero(I());
  sum = hn::ReorderWidenMulAccumulate(I(), even, hn::BitCast(W(), hn::Set(I(), pairs[0])), sum,
                                      unused);
  return hn::ReorderWidenMulAccumulate(I(), odd, hn::BitCast(W(), hn::Set(I(), pairs[1])), sum,
                                       unused);
}
#else
HWY_INLINE hn::Vec<I> add_quad(hn::Vec<I> sum, Quads bytes, const Code* numbers) {
  const auto product = [&](Quads byte, Code number) QIANLI_LAMBDA {
    return hn::Mul(hn::BitCast(I(), hn::And(byte, hn::Set(U(), 0xff))), hn::Set(I(), number));
  };
  sum = hn::Add(sum, product(bytes, numbers[0]));
  sum = hn::Add(sum, product(hn::ShiftRight<16>(bytes), numbers[1]));
  sum = hn::Add(sum, product(hn::ShiftRight<8>(bytes), numbers[2]));
  return hn::Add(sum, product(hn::ShiftRight<24>(bytes), numbers[3]));
}
#endif
#endif

// A scale that is not finite, of values that are not, makes all of its row's results so.
template <class T>
void whole_row(const T* x, int64_t columns, const WholeRows& to, int64_t row) {
  HWY_ALIGN float values[kBlockSize];
  HWY_ALIGN int32_t whole[kBlockSize];
  Code* codes = reinterpret_cast<Code*>(to.codes) + row * to.blocks * kBlockSize;
  for (int64_t block = 0; block < to.blocks; ++block) {
    V largest = zero(), differences = zero();
    for (int64_t i = 0; i < kBlockSize; i += lanes()) {
      const int64_t rest = columns - block * kBlockSize - i;
      const V value = rest > 0 ? load(x + block * kBlockSize + i, std::min(rest, lanes())) : zero();
      largest = hn::Max(largest, hn::Abs(value));
      differences = hn::Add(differences, hn::Sub(value, value));
      hn::StoreU(value, F(), values + i);
    }
    const float magnitude = max_of(largest);
    const V inverse = set(magnitude > 0.0f ? 127.0f / magnitude : 0.0f);
    auto sum = hn::Zero(I());
    for (int64_t i = 0; i < kBlockSize; i += lanes()) {
      const auto number = hn::NearestInt(hn::Mul(hn::LoadU(F(), values + i), inverse));
      sum = hn::Add(sum, number);
      hn::StoreU(number, I(), whole + i);
    }
    for (int64_t i = 0; i < kBlockSize; ++i)
      codes[block * kBlockSize + i] = static_cast<Code>(whole[(i & ~3) + kOrder[i & 3]]);
    to.scales[row * to.blocks + block] = magnitude / 127.0f + sum_of(differences);
    to.sums[row * to.blocks + block] = hn::GetLane(hn::SumOfLanes(I(), sum));
  }
}

void WholeRow(Dtype dtype, const void* x, int64_t columns, const WholeRows& to, int64_t row) {
  if (dtype == Dtype::kFloat32)
    return whole_row(static_cast<const float*>(x) + row * columns, columns, to, row);
  whole_row(static_cast<const uint16_t*>(x) + row * columns, columns, to, row);
}

// The codes of a block of columns of as many rows as there are lanes, a byte each.
template <BlockCode kCode>
HWY_INLINE void load_codes(const uint8_t* from, Quads (&codes)[kQuads]) {
  const auto* quads = reinterpret_cast<const uint32_t*>(from);
  if constexpr (kCode == BlockCode::kQ8_0) {
    QIANLI_UNROLL for (int q = 0; q < kQuads; ++q) {
      codes[q] = hn::LoadU(U(), quads + q * kTileRows);
    }
  } else {
    const Quads low = hn::Set(U(), 0x0f0f0f0f);
    QIANLI_UNROLL for (int q = 0; q < kQuads; q += 2) {
      const Quads both = hn::LoadU(U(), quads + q / 2 * kTileRows);
      codes[q] = hn::And(both, low);
      codes[q + 1] = hn::And(hn::ShiftRight<4>(both), low);
    }
  }
}

// kRows results of as many rows of the matrix as there are lanes: sums in registers, every code is
// loaded once.
template <BlockCode kCode, int kRows>
HWY_INLINE void lane_sums(const WholeRows& x, int64_t row, const uint8_t* codes,
                          const uint16_t* scales, V (&sums)[kRows]) {
  constexpr int32_t kZero = kCode == BlockCode::kQ8_0 ? 128 : 8;  // the code of 0
  const hn::Rebind<hwy::float16_t, F> half;
  const Code* numbers[kRows];
  for (int r = 0; r < kRows; ++r) {
    sums[r] = zero();
    numbers[r] = reinterpret_cast<const Code*>(x.codes) + (row + r) * x.blocks * kBlockSize;
  }
  const float* factors = x.scales + row * x.blocks;
  const int32_t* totals = x.sums + row * x.blocks;
  for (int64_t block = 0; block < x.blocks; ++block) {
    Quads quads[kQuads];
    const uint8_t* here = codes + block * code_bytes(kCode);
    if constexpr (kRows == 1) {
      // Codes and scales are two streams, which begin anew with each tile.
      constexpr int64_t kAhead = 4096, kLine = 64;
      for (int64_t line = 0; line < code_bytes(kCode); line += kLine)
        hwy::Prefetch(here + kAhead + line);
      hwy::Prefetch(scales + block * kTileRows + kAhead / 2);
    }
    load_codes<kCode>(here, quads);
    const auto bits = reinterpret_cast<const hwy::float16_t*>(scales + block * kTileRows);
    const V scale = hn::PromoteTo(F(), hn::LoadU(half, bits));
    QIANLI_UNROLL for (int r = 0; r < kRows; ++r) {
      auto dot = hn::Set(I(), -kZero * totals[r * x.blocks + block]);
      QIANLI_UNROLL for (int q = 0; q < kQuads; ++q) {
        dot = add_quad(dot, quads[q], numbers[r] + block * kBlockSize + 4 * q);
      }
      sums[r] = hn::MulAdd(hn::ConvertTo(F(), dot),
                           hn::Mul(scale, set(factors[r * x.blocks + block])), sums[r]);
    }
  }
}

template <class T, BlockCode kCode, int kRows>
void tile_rows(const BlockLinear& a, const WholeRows& x, int64_t row, int64_t tile) {
  const uint8_t* codes = a.weight.data + tile * tile_bytes(a.weight);
  const auto* scales = reinterpret_cast<const uint16_t*>(codes + x.blocks * code_bytes(kCode));
  for (int64_t lane = 0; lane < kTileRows; lane += lanes()) {
    const int64_t out = tile * kTileRows + lane;
    const int64_t count = std::min(lanes(), a.weight.out - out);
    if (count <= 0) return;
    V sums[kRows];
    lane_sums<kCode, kRows>(x, row, codes + 4 * lane, scales + lane, sums);
    const V start = a.bias ? load(static_cast<const T*>(a.bias) + out, count) : zero();
    for (int r = 0; r < kRows; ++r) {
      store(hn::Add(sums[r], start), static_cast<T*>(a.y) + (row + r) * a.weight.out + out, count);
    }
  }
}

// All rows of x with a tile before the next one is read.
template <class T, BlockCode kCode>
void tile_range(const BlockLinear& a, const WholeRows& x, int64_t begin, int64_t end) {
  for (int64_t tile = begin; tile < end; ++tile) {
    int64_t row = 0;
    for (; row + 4 <= a.rows; row += 4) tile_rows<T, kCode, 4>(a, x, row, tile);
    for (; row + 2 <= a.rows; row += 2) tile_rows<T, kCode, 2>(a, x, row, tile);
    if (row < a.rows) tile_rows<T, kCode, 1>(a, x, row, tile);
  }
}

void TileRange(const BlockLinear& a, const WholeRows& x, int64_t begin, int64_t end) {
  const bool wide = a.dtype == Dtype::kFloat32;
  if (a.weight.code == BlockCode::kQ8_0) {
    return wide ? tile_range<float, BlockCode::kQ8_0>(a, x, begin, end)
                : tile_range<uint16_t, BlockCode::kQ8_0>(a, x, begin, end);
  }
  return wide ? tile_range<float, BlockCode::kQ4_0>(a, x, begin, end)
              : tile_range<uint16_t, BlockCode::kQ4_0>(a, x, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {
namespace {

HWY_EXPORT(WholeRow);
HWY_EXPORT(TileRange);

// Where a row's parts of a block of columns lie.
struct RowPlace {
  uint8_t *codes, *scale;

  RowPlace(const BlockMatrix& matrix, int64_t row, int64_t block) {
    const int64_t lane = row % kTileRows;
    uint8_t* tile = matrix.data + row / kTileRows * tile_bytes(matrix);
    codes = tile + block * code_bytes(matrix.code) + 4 * lane;
    scale = tile + blocks_of(matrix.in) * code_bytes(matrix.code) + 2 * (block * kTileRows + lane);
  }
};

// Memory for the rows of a call, until the next one.
WholeRows room_for_rows(int64_t rows, int64_t columns) {
  const int64_t blocks = blocks_of(columns), count = rows * blocks;
  const int64_t codes = count * kBlockSize * 2 / static_cast<int64_t>(sizeof(float));
  float* memory = scratch(Slot::kShared, static_cast<size_t>(codes + 2 * count));
  return {.blocks = blocks,
          .codes = reinterpret_cast<int8_t*>(memory),
          .scales = memory + codes,
          .sums = reinterpret_cast<int32_t*>(memory + codes + count)};
}

}  // namespace

size_t block_matrix_bytes(BlockCode code, int64_t out, int64_t in) {
  return static_cast<size_t>(tiles_of(out) * tile_bytes({code, out, in, nullptr}));
}

void pack_row(const BlockMatrix& to, int64_t row, const uint8_t* blocks) {
  for (int64_t b = 0; b < blocks_of(to.in); ++b) {
    const RowPlace place(to, row, b);
    std::memcpy(place.scale, blocks, sizeof(uint16_t));
    blocks += sizeof(uint16_t);
    if (to.code == BlockCode::kQ8_0) {
      for (int64_t i = 0; i < kBlockSize; ++i)
        place.codes[i / 4 * 4 * kTileRows + i % 4] = blocks[i] ^ 0x80;
      blocks += kBlockSize;
    } else {
      // GGML has columns i and i + 16 in a byte.
      const auto column = [&](int64_t i) { return i < 16 ? blocks[i] & 0xf : blocks[i - 16] >> 4; };
      for (int64_t i = 0; i < kBlockSize / 2; ++i) {
        const int64_t low = i / 4 * 8 + i % 4;
        place.codes[i / 4 * 4 * kTileRows + i % 4] =
            static_cast<uint8_t>(column(low) | column(low + 4) << 4);
      }
      blocks += kBlockSize / 2;
    }
  }
}

void unpack_row(const BlockMatrix& from, int64_t row, uint8_t* blocks) {
  for (int64_t b = 0; b < blocks_of(from.in); ++b) {
    const RowPlace place(from, row, b);
    std::memcpy(blocks, place.scale, sizeof(uint16_t));
    blocks += sizeof(uint16_t);
    if (from.code == BlockCode::kQ8_0) {
      for (int64_t i = 0; i < kBlockSize; ++i)
        blocks[i] = place.codes[i / 4 * 4 * kTileRows + i % 4] ^ 0x80;
      blocks += kBlockSize;
    } else {
      const auto column = [&](int64_t i) {
        const uint8_t both = place.codes[i / 8 * 4 * kTileRows + i % 4];
        return i % 8 < 4 ? both & 0xf : both >> 4;
      };
      for (int64_t i = 0; i < kBlockSize / 2; ++i)
        blocks[i] = static_cast<uint8_t>(column(i) | column(i + 16) << 4);
      blocks += kBlockSize / 2;
    }
  }
}

void block_linear(const BlockLinear& args) {
  if (args.rows <= 0 || args.weight.out <= 0) return;
  const WholeRows x = room_for_rows(args.rows, args.weight.in);
  parallel_ranges(args.rows, 2 * row_grain(args.weight.in), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      HWY_DYNAMIC_DISPATCH(WholeRow)(args.dtype, args.x, args.weight.in, x, row);
  });
  // A thread's share is worth its wake-up from about 64 thousand products of a quad on.
  const int64_t products = kTileRows * args.weight.in * args.rows;
  parallel_ranges(tiles_of(args.weight.out), 4 * row_grain(products),
                  [&](int64_t begin, int64_t end) {
                    HWY_DYNAMIC_DISPATCH(TileRange)(args, x, begin, end);
                  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
