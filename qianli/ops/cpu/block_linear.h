// y = x W^T + b with a matrix W kept in few bits: 32 neighbours of a row are whole numbers times a
// half-precision scale of theirs, GGML's blocks Q8_0 and Q4_0. A row of x becomes blocks of whole
// numbers up to 127 times a float32 scale, so that products and their sums inside a block are those
// of integers, exact on every instruction set; blocks are added in order, in float32. A row of y
// does not depend on the rows beside it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "qianli/ops/kernels.h"

namespace qianli::ops::cpu {

enum class BlockCode { kQ8_0, kQ4_0 };

inline constexpr int64_t kBlockSize = 32;  // columns of a block
// Rows lie in tiles of 16. Of each block of columns a tile has, one behind the other, 4 columns of
// all 16 rows, row by row, a byte each (8 bits: + 128) or half a byte (4 bits: the quads 2 i and
// 2 i + 1 are the low and high halves of the same bytes); behind all codes of the tile stand its
// scales, 16 for a block. Rows and columns that fill up the last tile and block are zeros.
inline constexpr int64_t kTileRows = 16;

struct BlockMatrix {
  BlockCode code;
  int64_t out, in;
  uint8_t* data;  // 64-byte aligned
};

size_t block_matrix_bytes(BlockCode code, int64_t out, int64_t in);

// A row as GGML has it, in ceil(in / 32) blocks of 34 or 18 bytes. Rows may be packed in any order,
// by several threads if no two of them share a tile.
void pack_row(const BlockMatrix& to, int64_t row, const uint8_t* blocks);
void unpack_row(const BlockMatrix& from, int64_t row, uint8_t* blocks);

struct BlockLinear {
  Dtype dtype;  // of x, bias and y
  int64_t rows;
  const void* x;  // [rows, in]
  BlockMatrix weight;
  const void* bias;  // [out] or null
  void* y;           // [rows, out]
};
void block_linear(const BlockLinear& args);

}  // namespace qianli::ops::cpu
