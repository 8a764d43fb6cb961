// Makes one key of several tokens (DeepSeek-V4): a weighted mean of what each of them contributes,
// with weights of their own for every channel.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "qianli/nn/compressed_state.h"
#include "qianli/nn/forward_pass.h"
#include "qianli/nn/layers.h"

namespace qianli::nn {

// W keys of all segments, one behind the other; a key stands for the `ratio` tokens of its window.
// Tokens behind the last whole window of a segment have none.
struct CompressedKeys {
  at::Tensor keys;              // [W, size], rotated
  std::vector<int64_t> starts;  // [segments + 1]: 0 … W
};

class KeyCompressor {
 public:
  // Its parameters are called `prefix`linear_kv.weight and so on. Neighbours overlap: a token
  // contributes to its own window's key and, by other channels, to the next.
  KeyCompressor(const model::ModelSpec& spec, const model::LayerSpec& layer,
                ParameterSet& parameters, const std::string& prefix, int64_t size);

  // x: [T, h]. With states, one of each segment, the keys of all tokens so far, which they keep.
  CompressedKeys operator()(const at::Tensor& x, ForwardPass& pass,
                            const std::vector<CompressorState*>& states) const;

 private:
  // rows: [W ratio, …] contributions and their weights' logits; `first`: [W] bool, the windows that
  // no other one precedes. Returns [W, size], normed.
  at::Tensor means(const at::Tensor& kv, const at::Tensor& gate, const at::Tensor& first) const;
  at::Tensor rotate(const at::Tensor& keys, const at::Tensor& positions, ForwardPass& pass) const;
  CompressedKeys of_segments(const at::Tensor& kv, const at::Tensor& gate, ForwardPass& pass) const;
  // Of one segment: [state.count, size].
  at::Tensor continued(const at::Tensor& kv, const at::Tensor& gate, ForwardPass& pass,
                       CompressorState& state) const;

  const model::ModelSpec& spec_;
  const model::Rope* rope_;
  int64_t ratio_, size_;
  bool overlaps_;
  Linear kv_, gate_;
  ops::Parameter *position_bias_, *norm_;
};

}  // namespace qianli::nn
