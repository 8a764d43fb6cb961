// What a layer with a recurrent mixer keeps of the tokens already seen: a fixed size, however many.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "qianli/model/spec.h"
#include "qianli/ops/parameter.h"

namespace qianli::nn {

// Of several sequences, each in a slot.
struct RecurrentStates {
  at::Tensor conv_tails;  // [slots, kernel - 1, channels]: the last inputs of the convolution
  at::Tensor states;      // [slots, heads, key or state size, value size]; float32, or float64

  bool defined() const { return states.defined(); }
  // Back to before the first token.
  void reset(int64_t slot);
  void copy(int64_t from, int64_t to);

  // The convolution with SiLU of segments [T, channels] that continue the sequences in `slots`,
  // whose tails move on.
  at::Tensor convolve(const at::Tensor& x, ops::Parameter& weight, ops::Parameter* bias,
                      const std::vector<int64_t>& segment_starts,
                      const std::vector<int64_t>& slots);
  // States of these slots, [slots, …], and what they become.
  at::Tensor of(const std::vector<int64_t>& slots) const;
  void keep(const std::vector<int64_t>& slots, const at::Tensor& values);
};

// Zero states of layer `index`; undefined tensors where its mixer keeps none.
RecurrentStates make_recurrent_states(const model::ModelSpec& spec, int64_t index, int64_t slots,
                                      const at::TensorOptions& options);
// Bytes of one layer's states of one sequence for activations of `dtype`.
int64_t recurrent_state_bytes(const model::ModelSpec& spec, int64_t index, at::ScalarType dtype);

}  // namespace qianli::nn
