// What the tokens already seen by one sequence leave for those behind them, per layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "qianli/model/spec.h"
#include "qianli/nn/recurrent_state.h"

namespace qianli::nn {

class KvCache {
 public:
  // Layers get room for what their mixer keeps: keys and values, latents, or a recurrent state.
  KvCache(const model::ModelSpec& spec, int64_t capacity, at::ScalarType dtype, at::Device device);

  // Numbers that a token leaves in all layers together.
  static int64_t elements_per_token(const model::ModelSpec& spec);
  // Bytes that all layers together need besides, however many tokens there are.
  static int64_t fixed_bytes(const model::ModelSpec& spec, at::ScalarType dtype);

  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }
  // The appends put rows of one layer behind its first length() rows and return all rows so far,
  // [length + new, …]. They throw MemoryError when the capacity is exceeded.
  //
  // k: [new, key heads, D]; v: [new, key heads, D]. The rows of a head follow each other in memory,
  // because attention reads a long cache head by head: what comes back is a view of [heads,
  // capacity, D].
  struct KeysValues {
    at::Tensor k, v;
  };
  KeysValues append(int64_t layer, const at::Tensor& k, const at::Tensor& v);
  // Of latent attention: [new, kv_lora_rank + qk_rope_head_dim].
  at::Tensor append_latent(int64_t layer, const at::Tensor& latent);
  // Of an indexer: [new, its head size].
  at::Tensor append_index_keys(int64_t layer, const at::Tensor& keys);
  // Of a layer with a recurrent mixer, which brings it up to date itself.
  RecurrentState& recurrent(int64_t layer) { return layers_[static_cast<size_t>(layer)].recurrent; }
  // After all layers took `count` new tokens.
  void advance(int64_t count) { length_ += count; }
  // Forgets everything behind the first `length` tokens and returns how many are left. A recurrent
  // state cannot go back: with one, nothing is left unless nothing had to be forgotten.
  int64_t truncate(int64_t length);

 private:
  struct Layer {
    at::Tensor keys, values;         // [key heads, capacity, D]
    at::Tensor latents, index_keys;  // [capacity, …]; of all four undefined what is not kept
    RecurrentState recurrent;
  };
  at::Tensor append_to(const at::Tensor& storage, const at::Tensor& rows) const;

  int64_t length_ = 0;
  int64_t capacity_;
  std::vector<Layer> layers_;
};

}  // namespace qianli::nn
