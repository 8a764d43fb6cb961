// Gradients that are parts of a sum within the ranks of one model: of parameters that all ranks of
// a tensor group hold and use on their heads, columns or tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <vector>

#include "qianli/dist/group.h"
#include "qianli/nn/parameter_set.h"

namespace qianli::optim {

struct PartGroups {
  dist::Group tensor;
  dist::Group expert_tensor;
  dist::Group columns;  // those of `tensor` that have other columns of the residual stream
  // Neighbours of `tensor` that hold the same keys and values, by their number.
  std::map<int64_t, dist::Group> key_value;
};

class PartialGradients {
 public:
  PartialGradients(nn::ParameterSet& parameters, PartGroups groups);

  // Sums the gradients of these parameters, in one message for each group.
  void sum(const std::vector<size_t>& parameters);

 private:
  struct OfGroup {
    dist::Group group;
    std::map<size_t, nn::FlatRange> parts;  // of the elements of a parameter
  };

  nn::ParameterSet& parameters_;
  std::vector<OfGroup> groups_;
};

}  // namespace qianli::optim
