// Attention heads over the ranks of a group: each rank has some rows of all heads, and gets all
// rows of some heads (DeepSpeed-Ulysses, Jacobs et al., arXiv:2309.14509). Neither rows nor heads
// need divide evenly, and a range of heads may go to several ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "qianli/dist/group.h"

namespace qianli::nn {

struct HeadRange {
  int64_t begin, end;

  int64_t count() const { return end - begin; }
};
using HeadRanges = std::vector<HeadRange>;  // one per rank

// The query heads of each rank, and the key heads that these read; with fewer key heads than ranks
// some go to several.
HeadRanges query_ranges(int64_t query_heads, int64_t ranks);
HeadRanges key_ranges(int64_t query_heads, int64_t key_heads, int64_t ranks);

// tensors[t]: [rows of this rank, heads, D_t] -> [rows of all ranks, heads in ranges[t] of this
// rank, D_t], all in one message; rows: of each rank. Differentiable: gradients of a head that went
// to several ranks are summed.
std::vector<at::Tensor> to_heads(const std::vector<at::Tensor>& tensors,
                                 const std::vector<HeadRanges>& ranges,
                                 const std::vector<int64_t>& rows, const dist::Group& group);

// The way back for ranges that share out the heads: [rows of all ranks, heads of this rank, D] ->
// [rows of this rank, all heads, D].
at::Tensor to_rows(const at::Tensor& tensor, const HeadRanges& ranges,
                   const std::vector<int64_t>& rows, const dist::Group& group);

}  // namespace qianli::nn
