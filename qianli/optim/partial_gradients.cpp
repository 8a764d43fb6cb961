#include "qianli/optim/partial_gradients.h"

#include <ATen/ops/cat.h>

namespace qianli::optim {

PartialGradients::PartialGradients(const nn::ParameterSet& parameters, PartGroups groups) {
  groups_.push_back({.group = std::move(groups.tensor)});
  groups_.push_back({.group = std::move(groups.expert_tensor)});
  groups_.push_back({.group = std::move(groups.columns)});
  std::map<int64_t, size_t> places;  // of the groups of so many sharers
  for (auto& [sharers, group] : groups.key_value) {
    places[sharers] = groups_.size();
    groups_.push_back({.group = std::move(group)});
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    const plan::ParameterPart& part = parameters.part(i);
    if (part.entry.buffer) continue;
    const int64_t begin = parameters.place(i).offset, end = begin + part.elements();
    if (part.summed) groups_[part.entry.expert ? 1 : 0].parts.push_back({i, {begin, end}});
    if (part.summed_over_columns) groups_[2].parts.push_back({i, {begin, end}});
    if (part.sharers > 1) {
      groups_[places.at(part.sharers)].parts.push_back({i, {begin + part.shared_from, end}});
    }
  }
  std::erase_if(groups_, [](const OfGroup& each) { return each.parts.empty(); });
  for (OfGroup& each : groups_) each.left = each.parts.size();
}

void PartialGradients::sum_from(const at::Tensor& gradients, size_t index) {
  for (OfGroup& each : groups_) {
    std::vector<at::Tensor> pieces;
    while (each.left > 0 && each.parts[each.left - 1].index >= index) {
      const nn::FlatRange& range = each.parts[--each.left].range;
      pieces.push_back(gradients.narrow(0, range.begin, range.count()));
    }
    if (pieces.empty()) continue;
    const at::Tensor together = at::cat(pieces);
    each.group.all_reduce(together);
    int64_t next = 0;
    for (const at::Tensor& piece : pieces) {
      piece.copy_(together.narrow(0, next, piece.numel()));
      next += piece.numel();
    }
  }
}

void PartialGradients::finish(const at::Tensor& gradients) {
  sum_from(gradients, 0);
  for (OfGroup& each : groups_) each.left = each.parts.size();
}

}  // namespace qianli::optim
