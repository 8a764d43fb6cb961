// Activations of the MLP: plain (GPT-2's GELU) and gated (SwiGLU, GEGLU; Shazeer 2020).
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/kernels.h"

namespace qianli::ops {

// Plain: y = act(x). x: [T, F].
at::Tensor activation(const at::Tensor& x, ActivationKind kind);
// Gated: y = act(gate) * up with x = [gate | up]. x: [T, 2F]; returns [T, F]. SwiGLU is kind kSilu.
at::Tensor gated_activation(const at::Tensor& x, ActivationKind kind);

namespace reference {
at::Tensor activation(const at::Tensor& x, ActivationKind kind);
at::Tensor gated_activation(const at::Tensor& x, ActivationKind kind);
}  // namespace reference

}  // namespace qianli::ops
