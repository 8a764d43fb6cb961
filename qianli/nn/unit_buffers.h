// Tensors whose memory comes and goes. A view of one sees whatever memory it has at the time, so
// that who keeps a view (autograd, a Parameter) keeps no memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qianli::nn {

class UnitBuffers {
 public:
  explicit UnitBuffers(at::TensorOptions options) : options_(std::move(options)) {}

  // One more, without memory; its number.
  size_t add(int64_t elements);
  // [elements]
  const at::Tensor& at(size_t number) const { return buffers_[number].tensor; }
  bool is_there(size_t number) const { return buffers_[number].is_there; }
  // Contents are undefined after take(). Nothing may read or write the buffer after release().
  void take(size_t number);
  void release(size_t number);

  int64_t bytes() const { return bytes_; }
  int64_t peak_bytes() const { return peak_bytes_; }

 private:
  struct Buffer {
    at::Tensor tensor;
    size_t bytes = 0;
    bool is_there = false;
  };
  at::TensorOptions options_;
  std::vector<Buffer> buffers_;
  int64_t bytes_ = 0, peak_bytes_ = 0;
};

}  // namespace qianli::nn
