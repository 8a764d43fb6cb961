// Attention to keys that lie in the blocks of a cache (PagedAttention, Kwon et al.,
// arXiv:2309.06180). Without gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "qianli/ops/attention.h"

namespace qianli::ops {

// Which blocks hold the keys of a sequence, in order. Blocks at the front may be kNoBlock: their
// keys lie before every window.
inline constexpr int64_t kNoBlock = -1;
struct BlockTable {
  std::span<const int64_t> blocks;
  int64_t length = 0;  // keys
};

// Queries [R, heads, D]; row r is the last token of its sequence. k: [blocks, key heads, size, D];
// v: [blocks, key heads, size, Dv], which may be a part of k. Of `layout` the switches count:
// window, scale, softcap, slopes. Returns [R, heads, Dv].
at::Tensor paged_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           std::span<const BlockTable> tables, const AttentionLayout& layout,
                           Parameter* sinks = nullptr);

// The keys of the tables one behind the other, [sum of those that have a block, heads, D], and in
// `starts` where each table's begin: [tables + 1].
at::Tensor gather_blocks(const at::Tensor& pool, std::span<const BlockTable> tables,
                         std::vector<int64_t>& starts);

namespace reference {
at::Tensor paged_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           std::span<const BlockTable> tables, const AttentionLayout& layout,
                           const at::Tensor& sinks);
}

}  // namespace qianli::ops
