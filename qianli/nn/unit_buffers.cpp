#include "qianli/nn/unit_buffers.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace qianli::nn {
namespace {

void give_memory(const at::Tensor& tensor, size_t bytes) {
  c10::StorageImpl* storage = tensor.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(storage->allocator()->allocate(bytes));
  storage->set_nbytes(bytes);
}

}  // namespace

size_t UnitBuffers::add(int64_t elements) {
  Buffer buffer{.tensor = at::empty({elements}, options_)};
  buffer.bytes = buffer.tensor.nbytes();
  give_memory(buffer.tensor, 0);
  buffers_.push_back(std::move(buffer));
  return buffers_.size() - 1;
}

void UnitBuffers::take(size_t number) {
  Buffer& buffer = buffers_[number];
  if (buffer.is_there) return;
  give_memory(buffer.tensor, buffer.bytes);
  buffer.is_there = true;
  bytes_ += static_cast<int64_t>(buffer.bytes);
  peak_bytes_ = std::max(peak_bytes_, bytes_);
}

void UnitBuffers::release(size_t number) {
  Buffer& buffer = buffers_[number];
  if (!buffer.is_there) return;
  give_memory(buffer.tensor, 0);
  buffer.is_there = false;
  bytes_ -= static_cast<int64_t>(buffer.bytes);
}

}  // namespace qianli::nn
