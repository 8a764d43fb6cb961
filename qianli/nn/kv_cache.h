// Keys and values of the tokens already seen by one sequence, per layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "qianli/model/spec.h"

namespace qianli::nn {

class KvCache {
 public:
  KvCache(const model::ModelSpec& spec, int64_t capacity, at::ScalarType dtype, at::Device device);

  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }
  // Appends k, v: [new, key heads, D] of one layer behind the first length() rows and returns all rows so
  // far: [length + new, key heads, D]. Throws MemoryError when the capacity is exceeded.
  struct KeysValues {
    at::Tensor k, v;
  };
  KeysValues append(int64_t layer, const at::Tensor& k, const at::Tensor& v);
  // After all layers took `count` new tokens.
  void advance(int64_t count) { length_ += count; }
  // Forgets everything behind the first `length` tokens.
  void truncate(int64_t length) { length_ = std::min(length_, length); }

 private:
  int64_t length_ = 0;
  int64_t capacity_;
  std::vector<at::Tensor> keys_;
  std::vector<at::Tensor> values_;
};

}  // namespace qianli::nn
