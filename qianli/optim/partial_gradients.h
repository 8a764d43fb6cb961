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
  PartialGradients() = default;
  PartialGradients(const nn::ParameterSet& parameters, PartGroups groups);

  // The parameters from `index` on have their gradients; those not summed before are, in one
  // message for each group.
  void sum_from(const at::Tensor& gradients, size_t index);
  // Sums what is left; the next call begins a new step.
  void finish(const at::Tensor& gradients);

 private:
  struct Part {
    size_t index;  // of the parameter
    nn::FlatRange range;
  };
  struct OfGroup {
    dist::Group group;
    std::vector<Part> parts;  // in the order of parameters
    size_t left = 0;          // so many of them are not summed yet
  };

  std::vector<OfGroup> groups_;
};

}  // namespace qianli::optim
