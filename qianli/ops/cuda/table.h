// The CUDA implementations of the ops table, one .cu file per op; contracts: qianli/ops/kernels.h.
//
// Arithmetic is float32 whatever the storage. There are no float atomics, and the order of every
// sum depends on shapes alone: the same call gives the same bits on every run. The current device
// must be the one that owns `stream`. An output may be the very buffer of an input of the same
// shape and dtype.
#pragma once

#include "qianli/ops/kernels.h"

namespace qianli::ops::cuda {

void rms_norm_forward(const NormForward& call, Stream stream);
void rms_norm_backward(const NormBackward& call, Stream stream);
void layer_norm_forward(const NormForward& call, Stream stream);
void layer_norm_backward(const NormBackward& call, Stream stream);
void gated_norm_forward(const GatedNormForward& call, Stream stream);
void gated_norm_backward(const GatedNormBackward& call, Stream stream);
void rotary(const Rotary& call, Stream stream);
void activation_forward(const ActivationForward& call, Stream stream);
void activation_backward(const ActivationBackward& call, Stream stream);
void embedding_forward(const EmbeddingForward& call, Stream stream);
void embedding_backward(const EmbeddingBackward& call, Stream stream);
void cross_entropy(const CrossEntropy& call, Stream stream);
void adamw(const AdamW& call, Stream stream);
void squared_norm(const SquaredNorm& call, Stream stream);
void dropout(const DropoutRows& call, Stream stream);

// Plain attention runs through LibTorch's fused kernels (flash_attention.h); these serve the rest.
void attention_forward(const AttentionForward& call, Stream stream);
void attention_backward(const AttentionBackward& call, Stream stream);

const KernelTable& kernels();

}  // namespace qianli::ops::cuda
