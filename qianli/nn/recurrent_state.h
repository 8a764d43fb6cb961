// What a layer with a recurrent mixer keeps of the tokens already seen: a fixed size, however many.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/model/spec.h"

namespace qianli::nn {

struct RecurrentState {
  at::Tensor conv_tail;  // [kernel - 1, channels]: the last inputs of the convolution
  at::Tensor state;      // [1, heads, key or state size, value size]; float32, or float64

  bool defined() const { return state.defined(); }
  // Back to before the first token.
  void reset();
};

// Zero states of layer `index`; undefined tensors where its mixer keeps none.
RecurrentState make_recurrent_state(const model::ModelSpec& spec, int64_t index,
                                    const at::TensorOptions& options);
// Bytes of one layer's states for activations of `dtype`.
int64_t recurrent_state_bytes(const model::ModelSpec& spec, int64_t index, at::ScalarType dtype);

}  // namespace qianli::nn
