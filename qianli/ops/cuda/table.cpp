#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {

const KernelTable& kernels() {
  static const KernelTable table{
      .name = "cuda",
      .rms_norm_forward = rms_norm_forward,
      .rms_norm_backward = rms_norm_backward,
      .layer_norm_forward = layer_norm_forward,
      .layer_norm_backward = layer_norm_backward,
      .gated_norm_forward = gated_norm_forward,
      .gated_norm_backward = gated_norm_backward,
      .rotary = rotary,
      .activation_forward = activation_forward,
      .activation_backward = activation_backward,
      .embedding_forward = embedding_forward,
      .embedding_backward = embedding_backward,
      .cross_entropy = cross_entropy,
      .adamw = adamw,
      .squared_norm = squared_norm,
      .attention_forward = attention_forward,
      .attention_backward = attention_backward,
      .dropout = dropout,
  };
  return table;
}

}  // namespace qianli::ops::cuda
