// The dense feed-forward block.
#pragma once

#include "qianli/nn/block.h"
#include "qianli/nn/layers.h"
#include "qianli/ops/activation.h"

namespace qianli::nn {

// fc2(act(fc1 x)), or with a gate fc2(act(gate x) * up x), fc1 = [gate; up].
class Mlp : public Block {
 public:
  Mlp(const model::ModelSpec& spec, const model::LayerSpec& layer, ParameterSet& parameters,
      const std::string& prefix);
  BlockOutput forward(const BlockInput& x, ForwardPass& pass) override;

 private:
  Linear fc1_, fc2_;
  bool gated_;
  ops::ActivationKind activation_;
  double limit_;
  bool limit_first_;
};

// act(gate) * up of wide = [gate | up], where limit > 0 clamps up and, from above, either the gate
// (`limit_first`) or what comes of it. [T, 2 f] -> [T, f].
at::Tensor gated_branches(const at::Tensor& wide, ops::ActivationKind kind, double limit,
                          bool limit_first);

ops::ActivationKind activation_kind(model::Activation activation);

}  // namespace qianli::nn
