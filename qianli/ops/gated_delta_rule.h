// The gated delta rule over packed sequences: linear attention whose state forgets by a decay and
// replaces what a key pointed at (Gated DeltaNet, Yang et al., arXiv:2412.06464), computed in
// chunks (the UT transform of Yang et al., arXiv:2406.06484).
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/segments.h"

namespace qianli::ops {

// Value head h uses key head h / (Hv / Hk). Queries and keys are divided by their length; queries
// are scaled by dk^-0.5 besides.
struct DeltaRuleInput {
  at::Tensor q, k;  // [T, Hk, dk], rows may be apart
  at::Tensor v;     // [T, Hv, dv], rows may be apart
  at::Tensor g;     // [T, Hv] logarithm of the decay, at most 0; float32 or float64
  at::Tensor beta;  // [T, Hv] in [0, 1]; float32 or float64
  SegmentStarts starts;
  at::Tensor initial_state;  // [segments, Hv, dk, dv], float32 or float64; undefined: zero
  bool keep_state = false;   // whether final_state is wanted
};
struct DeltaRuleOutput {
  at::Tensor out;          // [T, Hv, dv] in the type of v
  at::Tensor final_state;  // like initial_state; undefined unless wanted
};

// Per segment and value head, with the state S [dk, dv]:
//   c_t = v_t - exp(g_t) S^T k_t     S = exp(g_t) S + k_t (x) beta_t c_t     out_t = S^T q_t
// State and sums in float32 (float64 for float64 inputs). All floating inputs get gradients.
DeltaRuleOutput gated_delta_rule(const DeltaRuleInput& input);

// Added to the squared length of queries and keys.
inline constexpr double kDeltaRuleNormEps = 1e-6;

namespace reference {
// Token by token.
DeltaRuleOutput gated_delta_rule(const DeltaRuleInput& input);
}  // namespace reference

namespace chunked {
// In batched matrix products, any device and type; the gradients are written by hand.
struct DeltaRuleGradients {
  at::Tensor q, k, v, g, beta;
  at::Tensor initial_state;  // undefined without one
};
DeltaRuleOutput gated_delta_rule(const DeltaRuleInput& input);
// The gradients of either output may be undefined: zero.
DeltaRuleGradients gated_delta_rule_backward(const DeltaRuleInput& input,
                                             const at::Tensor& grad_out,
                                             const at::Tensor& grad_final_state);
}  // namespace chunked

}  // namespace qianli::ops
