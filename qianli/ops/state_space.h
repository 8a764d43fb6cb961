// The selective state space of Mamba-2 over packed sequences, computed in chunks by its dual form,
// state-space duality (Dao and Gu, arXiv:2405.21060).
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/ops/parameter.h"
#include "qianli/ops/segments.h"

namespace qianli::ops {

// Head h uses the b and c of group h / (n / G).
struct StateSpaceInput {
  at::Tensor x;     // [T, n, hd], rows may be apart
  at::Tensor dt;    // [T, n] step sizes, not negative; float32 or float64
  at::Tensor b, c;  // [T, G, N], rows may be apart
  SegmentStarts starts;
  at::Tensor initial_state;  // [segments, n, N, hd], float32 or float64; undefined: zero
  bool keep_state = false;   // whether final_state is wanted
};
struct StateSpaceOutput {
  at::Tensor out;          // [T, n, hd] in the type of x
  at::Tensor final_state;  // like initial_state; undefined unless wanted
};

// Per segment and head, with the state S [N, hd] and a = -exp(a_log):
//   S = exp(dt_t a) S + b_t (x) dt_t x_t     out_t = S^T c_t + skip x_t
// a_log, skip: [n]. State and sums in float32 (float64 for float64 inputs). All floating inputs and
// both parameters get gradients.
StateSpaceOutput state_space(const StateSpaceInput& input, Parameter& a_log, Parameter& skip);

namespace reference {
// Token by token.
StateSpaceOutput state_space(const StateSpaceInput& input, const at::Tensor& a_log,
                             const at::Tensor& skip);
}  // namespace reference

namespace chunked {
// In batched matrix products, any device and type; the gradients are written by hand.
// a = -exp(a_log), skip: [n] in the accumulation type.
struct StateSpaceGradients {
  at::Tensor x, b, c;
  at::Tensor dt;             // [T, n], without the way over the exponent dt a
  at::Tensor decay;          // [T, n], of the exponent dt a
  at::Tensor skip;           // [T, n], to be added up over the tokens
  at::Tensor initial_state;  // undefined without one
};
StateSpaceOutput state_space(const StateSpaceInput& input, const at::Tensor& a,
                             const at::Tensor& skip);
// The gradients of either output may be undefined: zero.
StateSpaceGradients state_space_backward(const StateSpaceInput& input, const at::Tensor& a,
                                         const at::Tensor& skip, const at::Tensor& grad_out,
                                         const at::Tensor& grad_final_state);
}  // namespace chunked

}  // namespace qianli::ops
