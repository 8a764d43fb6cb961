// One sequence and its key/value cache: tokens go in, the logits of what follows come out.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "qianli/infer/model.h"
#include "qianli/nn/kv_cache.h"

namespace qianli::infer {

class Sequence {
 public:
  // Room for `capacity` tokens. `prompt_length`: dynamic rotary scaling turns all positions of a
  // prompt by its whole length, so it must be known before the first part of it comes. Throws
  // MemoryError where the cache does not fit.
  Sequence(Model& model, int64_t capacity, int64_t prompt_length, int64_t adapter = nn::kNoAdapter);

  // Runs the decoder over more tokens, all at once: a long prompt is better cut by the caller.
  // Throws DataError for an id outside the vocabulary.
  void append(std::span<const int64_t> ids);
  // Of the token that follows the last one: float32 [V] on the CPU, the caller's own.
  at::Tensor logits();
  // Of the last append: [tokens, H].
  const at::Tensor& hidden() const { return hidden_; }

  int64_t length() const { return cache_.length(); }
  int64_t capacity() const { return cache_.capacity(); }

 private:
  Model& model_;
  int64_t prompt_length_, adapter_;
  nn::KvCache cache_;
  at::Tensor positions_;  // [capacity] 0, 1, …
  at::Tensor hidden_;
};

}  // namespace qianli::infer
