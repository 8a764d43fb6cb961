// Gated DeltaNet (Yang et al., arXiv:2412.06464), the linear attention layers of Qwen3-Next.
#pragma once

#include <string>

#include "qianli/nn/block.h"
#include "qianli/nn/layers.h"

namespace qianli::nn {

// T tokens, nk key heads of size dk, nv value heads of size dv, R = nv / nk.
class GatedDeltaNet : public Block {
 public:
  // `spec` must outlive the block. Its parameters are called `prefix`.in_proj.weight and so on
  // (model/parameter_table.h); `index` is the layer's place in the cache.
  GatedDeltaNet(const model::ModelSpec& spec, ParameterSet& parameters, const std::string& prefix,
                int64_t index);
  BlockOutput forward(const BlockInput& x, ForwardPass& pass) override;

 private:
  struct Projections {
    at::Tensor qkv;   // [T, 2 nk dk + nv dv], before the convolution
    at::Tensor z;     // [T, nv, dv], the output's gate
    at::Tensor beta;  // [T, nv] in float32 or float64
    at::Tensor g;     // the same: logarithm of the decay
  };
  Projections project(const BlockInput& x) const;
  at::Tensor mix(const Projections& projected, const DecoderInput& input) const;

  const model::GatedDeltaNet& sizes_;
  double norm_eps_;
  int64_t index_;
  Linear in_proj_, out_proj_;
  ops::Parameter& conv_;
  ops::Parameter& a_log_;
  ops::Parameter& dt_bias_;
  ops::Parameter& norm_;
};

}  // namespace qianli::nn
