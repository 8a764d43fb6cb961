// Handles to a layer's parameters: found by name once, called many times.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "qianli/model/spec.h"
#include "qianli/nn/attached_adapters.h"
#include "qianli/nn/parallel.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/nn/shared_norm.h"
#include "qianli/ops/low_rank.h"
#include "qianli/ops/norm.h"
#include "qianli/ops/parameter.h"

namespace qianli::nn {

// y = x W^T + b; x [T, in], W [out, in]; and what an adapter of low rank adds.
struct Linear {
  ops::Parameter* weight = nullptr;
  ops::Parameter* bias = nullptr;
  std::shared_ptr<const ops::LowRank> adapter = nullptr;
  // What is attached to a model that only computes; null: nothing can be.
  std::shared_ptr<const AttachedLinear> attached = nullptr;

  explicit operator bool() const { return weight != nullptr; }
  at::Tensor operator()(const at::Tensor& x) const;
  // The same where x are not all rows of the pass, but those from `first` on.
  at::Tensor of_rows(const at::Tensor& x, int64_t first) const;
  // Of the ranks of a tensor group that have columns of the weight each: parts of a sum, of which
  // the first rank's has the bias.
  at::Tensor partial(const at::Tensor& x, const Parallel& parallel) const;
  // With the adapter in it, that of the first `rows` rows of the pass: more than one where these
  // have different adapters.
  std::vector<AttachedLinear::RowsWeight> merged_weights(int64_t rows) const;
  // Whether a backward pass adds to a gradient of it, and whether it needs the input for that.
  bool is_trained() const;
  bool learns_from_input() const;
};

// `prefix`.weight and, where the model has them, `prefix`.bias and `prefix`.lora_A and lora_B; no
// weight: an empty Linear.
Linear find_linear(ParameterSet& parameters, const std::string& prefix);

// RMSNorm or LayerNorm of the residual stream, over its columns.
struct Norm : SharedNorm {
  explicit operator bool() const { return weight != nullptr; }
  at::Tensor operator()(const at::Tensor& x) const;
  // The norm of x + residual, and that sum.
  ops::NormWithSum add(const at::Tensor& x, const at::Tensor& residual) const;
};

// How the spec's layers store the weights of RMSNorm.
ops::NormWeight norm_weight(const model::ModelSpec& spec);
// Of the kind that the spec gives its layers.
Norm find_norm(ParameterSet& parameters, const std::string& prefix, const model::ModelSpec& spec,
               const Parallel& parallel);

}  // namespace qianli::nn
