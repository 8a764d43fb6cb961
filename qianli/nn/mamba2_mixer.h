// The mixer of Mamba-2 (Dao and Gu, arXiv:2405.21060).
#pragma once

#include <string>

#include "qianli/nn/block.h"
#include "qianli/nn/layers.h"

namespace qianli::nn {

// T tokens, n heads of size hd, I = n hd, G groups, N state size.
class Mamba2Mixer : public Block {
 public:
  // `spec` must outlive the block. Its parameters are called `prefix`.in_proj.weight and so on
  // (model/parameter_table.h); `index` is the layer's place in the cache.
  Mamba2Mixer(const model::ModelSpec& spec, ParameterSet& parameters, const std::string& prefix,
              int64_t index);
  BlockOutput forward(const BlockInput& x, ForwardPass& pass) override;

 private:
  // xbc: [T, I + 2 G N] before the convolution, dt: [T, n] before bias and softplus.
  // Returns [T, n, hd].
  at::Tensor mix(const at::Tensor& xbc, const at::Tensor& dt, const DecoderInput& input) const;

  const model::Mamba2& sizes_;
  double norm_eps_;
  int64_t index_;
  Linear in_proj_, out_proj_;
  ops::Parameter& conv_;
  ops::Parameter* conv_bias_;
  ops::Parameter& a_log_;
  ops::Parameter& skip_;
  ops::Parameter& dt_bias_;
  ops::Parameter& norm_;
};

}  // namespace qianli::nn
