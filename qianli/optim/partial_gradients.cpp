#include "qianli/optim/partial_gradients.h"

#include <ATen/ops/cat.h>

namespace qianli::optim {

PartialGradients::PartialGradients(nn::ParameterSet& parameters, PartGroups groups)
    : parameters_(parameters) {
  groups_.push_back({.group = std::move(groups.tensor), .parts = {}});
  groups_.push_back({.group = std::move(groups.expert_tensor), .parts = {}});
  groups_.push_back({.group = std::move(groups.columns), .parts = {}});
  std::map<int64_t, size_t> places;  // of the groups of so many sharers
  for (auto& [sharers, group] : groups.key_value) {
    places[sharers] = groups_.size();
    groups_.push_back({.group = std::move(group), .parts = {}});
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    const plan::ParameterPart& part = parameters.part(i);
    if (!parameters.is_trained(i)) continue;
    if (part.summed) groups_[part.entry.expert ? 1 : 0].parts[i] = {0, part.elements()};
    if (part.summed_over_columns) groups_[2].parts[i] = {0, part.elements()};
    if (part.sharers > 1)
      groups_[places.at(part.sharers)].parts[i] = {part.shared_from, part.elements()};
  }
  std::erase_if(groups_, [](const OfGroup& each) { return each.parts.empty(); });
}

void PartialGradients::sum(const std::vector<size_t>& parameters) {
  for (const OfGroup& each : groups_) {
    std::vector<at::Tensor> pieces;
    for (const size_t index : parameters) {
      const auto part = each.parts.find(index);
      if (part == each.parts.end()) continue;
      const nn::FlatRange& range = part->second;
      const at::Tensor gradient = parameters_.at(index).grad().view(-1);
      pieces.push_back(gradient.narrow(0, range.begin, range.count()));
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

}  // namespace qianli::optim
