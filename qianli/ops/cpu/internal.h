// The CPU kernels one by one; cpu_kernels() in table.cpp gathers them.
#pragma once

#include "qianli/ops/kernels.h"

namespace qianli::ops::cpu {

// A row of logits is read in blocks that stay in the first-level cache between finding the block's
// maximum and summing its exponentials.
inline constexpr int64_t kLogitBlock = 4096;
// Causal convolution: channels that are taken together (a row of a block is eight cache lines of
// float32), and rows of a tile in the backward pass.
inline constexpr int64_t kConvChannels = 128;
inline constexpr int64_t kConvTileRows = 64;

void rms_norm_forward(const NormForward& args, Stream);
void rms_norm_backward(const NormBackward& args, Stream);
void layer_norm_forward(const NormForward& args, Stream);
void layer_norm_backward(const NormBackward& args, Stream);
void gated_norm_forward(const GatedNormForward& args, Stream);
void gated_norm_backward(const GatedNormBackward& args, Stream);
void rotary(const Rotary& args, Stream);
void activation_forward(const ActivationForward& args, Stream);
void activation_backward(const ActivationBackward& args, Stream);
void embedding_forward(const EmbeddingForward& args, Stream);
void embedding_backward(const EmbeddingBackward& args, Stream);
void cross_entropy(const CrossEntropy& args, Stream);
void adamw(const AdamW& args, Stream);
void squared_norm(const SquaredNorm& args, Stream);
void linear_few_rows(const LinearFewRows& args, Stream);
void grouped_linear_forward(const GroupedLinearForward& args, Stream);
void grouped_linear_backward_input(const GroupedLinearBackwardInput& args, Stream);
void grouped_linear_backward_weight(const GroupedLinearBackwardWeight& args, Stream);
void gather_rows(const GatherRows& args, Stream);
void combine_rows(const CombineRows& args, Stream);
void combine_rows_backward(const CombineRowsBackward& args, Stream);
void attention_forward(const AttentionForward& args, Stream);
void attention_backward(const AttentionBackward& args, Stream);
void causal_conv_forward(const CausalConvForward& args, Stream);
void causal_conv_backward(const CausalConvBackward& args, Stream);
void delta_rule_forward(const DeltaRuleForward& args, Stream);
void delta_rule_backward(const DeltaRuleBackward& args, Stream);
void state_space_forward(const StateSpaceForward& args, Stream);
void state_space_backward(const StateSpaceBackward& args, Stream);
void dropout(const DropoutRows& args, Stream);

}  // namespace qianli::ops::cpu
