// Keys and values where the sequences of a microbatch go through a part of the model in slices, one
// after the other (Seq1F1B, Sun et al., arXiv:2406.03488): a slice attends to those of the slices
// before it and its own. Backward, slices come in reverse, and each adds its gradients of earlier
// slices' keys to a sum that those take when it is their turn.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <map>

#include "qianli/data/sequence_slice.h"
#include "qianli/nn/visiting_keys.h"

namespace qianli::nn {

// Of one microbatch in one chunk.
class SliceKeys {
 public:
  // Keeps a slice's k [rows, key heads, D] and v [rows, key heads, Dv] of attention layer `layer`,
  // and returns those of the whole microbatch: zero where slices have yet to come.
  KeysAndValues with_earlier(int64_t layer, const at::Tensor& k, const at::Tensor& v,
                             const data::SequenceSlice& slice);

 private:
  struct Layer : torch::CustomClassHolder {
    at::Tensor k, v;            // [T of all slices, key heads, ·]
    at::Tensor grad_k, grad_v;  // in float32 or float64, from slices behind
  };
  class Function;
  std::map<int64_t, c10::intrusive_ptr<Layer>> layers_;
};

}  // namespace qianli::nn
