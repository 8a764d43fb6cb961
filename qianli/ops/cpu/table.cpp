#include "qianli/ops/cpu/internal.h"

namespace qianli::ops {

const KernelTable& cpu_kernels() {
  static constexpr KernelTable kTable = {
      .name = "native",
      .rms_norm_forward = cpu::rms_norm_forward,
      .rms_norm_backward = cpu::rms_norm_backward,
      .layer_norm_forward = cpu::layer_norm_forward,
      .layer_norm_backward = cpu::layer_norm_backward,
      .gated_norm_forward = cpu::gated_norm_forward,
      .gated_norm_backward = cpu::gated_norm_backward,
      .rotary = cpu::rotary,
      .activation_forward = cpu::activation_forward,
      .activation_backward = cpu::activation_backward,
      .embedding_forward = cpu::embedding_forward,
      .embedding_backward = cpu::embedding_backward,
      .cross_entropy = cpu::cross_entropy,
      .adamw = cpu::adamw,
      .squared_norm = cpu::squared_norm,
      .attention_forward = cpu::attention_forward,
      .attention_backward = cpu::attention_backward,
      .linear_few_rows = cpu::linear_few_rows,
      .grouped_linear_forward = cpu::grouped_linear_forward,
      .grouped_linear_backward_input = cpu::grouped_linear_backward_input,
      .grouped_linear_backward_weight = cpu::grouped_linear_backward_weight,
      .gather_rows = cpu::gather_rows,
      .combine_rows = cpu::combine_rows,
      .combine_rows_backward = cpu::combine_rows_backward,
      .causal_conv_forward = cpu::causal_conv_forward,
      .causal_conv_backward = cpu::causal_conv_backward,
      .delta_rule_forward = cpu::delta_rule_forward,
      .delta_rule_backward = cpu::delta_rule_backward,
      .state_space_forward = cpu::state_space_forward,
      .state_space_backward = cpu::state_space_backward,
      .dropout = cpu::dropout,
  };
  return kTable;
}

}  // namespace qianli::ops
