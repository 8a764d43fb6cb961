// Activations of the MLP: plain (GPT-2's GELU) and gated (SwiGLU, GEGLU; Shazeer 2020).
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/kernels.h"

namespace qianli::ops {

// Plain: y = act(x). x: [T, F].
at::Tensor activation(const at::Tensor& x, ActivationKind kind);

// Gated: y = act(gate) * up with x = [gate | up]. x: [T, 2F]; returns [T, F]. SwiGLU is kind kSilu.
// limit > 0: act(gate) is clamped from above and up to both sides (Step-3.5).
// kClampedSwiglu: y = (up + 1) * gate * sigmoid(1.702 gate), where the limit clamps gate itself
// (gpt-oss: 7).
at::Tensor gated_activation(const at::Tensor& x, ActivationKind kind, double limit = 0.0);

namespace reference {
at::Tensor activation(const at::Tensor& x, ActivationKind kind);
at::Tensor gated_activation(const at::Tensor& x, ActivationKind kind, double limit = 0.0);
}  // namespace reference

}  // namespace qianli::ops
