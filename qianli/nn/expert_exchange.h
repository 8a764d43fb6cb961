// Rows on their way to the ranks that hold their experts, and back: the all-to-all dispatcher of
// Megatron-core (megatron/core/transformer/moe/token_dispatcher.py).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "qianli/dist/group.h"

namespace qianli::nn {

class ExpertExchange {
 public:
  // `counts` [E]: rows of this rank for each expert, of which every rank of the group has its
  // share, neighbours together. All ranks call it. The group must outlive the graph.
  ExpertExchange(const std::vector<int64_t>& counts, const dist::Group& group);

  // Rows of each expert that this rank holds, those of all ranks together.
  const std::vector<int64_t>& counts() const { return counts_; }
  // [R, h] sorted by expert -> the rows of the held experts, sorted by expert.
  at::Tensor to_experts(const at::Tensor& rows) const;
  // What became of those rows, back to where they came from.
  at::Tensor from_experts(const at::Tensor& rows) const;

  // One direction: what travels, and in which order it stands on this side and is wanted on that.
  struct Way {
    const dist::Group* group;
    std::vector<int64_t> sent, received;
    at::Tensor before, after;  // undefined: as it is

    at::Tensor go(const at::Tensor& rows) const;
  };

 private:
  Way there(at::Device device) const;
  Way back(at::Device device) const;

  const dist::Group& group_;
  std::vector<int64_t> counts_;
  std::vector<int64_t> sent_, received_;  // rows to and from each rank
  at::Tensor by_expert_, by_source_;      // received rows in the order of experts, and back
};

}  // namespace qianli::nn
