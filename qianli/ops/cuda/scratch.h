// Device memory for the length of one kernel call.
#pragma once

#include <cstddef>

#include "qianli/ops/kernels.h"

namespace qianli::ops::cuda {

// Comes from LibTorch's caching allocator, so it costs no driver call after the first step and
// counts in the memory statistics. It belongs to `stream`: it may be given back as soon as the last
// kernel that uses it has been queued there. At least 256-byte aligned; its content is undefined.
class Scratch {
 public:
  Scratch(std::size_t bytes, Stream stream);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
};

}  // namespace qianli::ops::cuda
