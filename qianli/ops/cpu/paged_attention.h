// Attention of single queries to keys that lie in blocks: decoding, with the cache of many
// sequences.
#pragma once

#include <cstdint>

#include "qianli/ops/kernels.h"

namespace qianli::ops::cpu {

// Row r is the last token of a sequence of lengths[r] keys; key j of it is row j % block_size of
// block tables[r * table_stride + j / block_size]. Blocks that lie whole before the window are
// never read. The rest as in AttentionForward.
inline constexpr int64_t kMostPagedBlock = 64;
struct PagedAttention {
  Dtype dtype;
  int64_t rows, query_heads, key_heads, head_dim, value_dim;
  int64_t block_size;  // at most kMostPagedBlock
  double scale, softcap = 0.0;
  int64_t window = 0;
  const float* slopes = nullptr;
  const float* sinks = nullptr;
  const void* q;  // [rows, query_heads, head_dim]
  int64_t q_stride, q_head_stride;
  const void* k;  // [blocks, key_heads, block_size, head_dim]
  const void* v;  // [blocks, key_heads, block_size, value_dim]
  int64_t k_block_stride, k_head_stride, k_stride;
  int64_t v_block_stride, v_head_stride, v_stride;
  const int64_t* tables;
  int64_t table_stride;
  const int64_t* lengths;  // [rows], each at least 1
  void* out;               // [rows, query_heads, value_dim], contiguous
};

void paged_attention(const PagedAttention& args);

}  // namespace qianli::ops::cpu
