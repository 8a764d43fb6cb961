#include "qianli/nn/kv_cache.h"

#include <ATen/ops/empty.h>
#include <fmt/core.h>

#include "qianli/base/error.h"

namespace qianli::nn {

KvCache::KvCache(const model::ModelSpec& spec, int64_t capacity, at::ScalarType dtype, at::Device device)
    : capacity_(capacity) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    keys_.push_back(at::empty({capacity, spec.num_query_groups, spec.head_dim}, options));
    values_.push_back(at::empty({capacity, spec.num_query_groups, spec.head_dim}, options));
  }
}

KvCache::KeysValues KvCache::append(int64_t layer, const at::Tensor& k, const at::Tensor& v) {
  const int64_t added = k.size(0);
  if (length_ + added > capacity_) {
    throw MemoryError("kv_cache", fmt::format("expected at most {} tokens, got {}", capacity_, length_ + added),
                      "ask for fewer new tokens");
  }
  keys_[layer].narrow(0, length_, added).copy_(k);
  values_[layer].narrow(0, length_, added).copy_(v);
  return {keys_[layer].narrow(0, 0, length_ + added), values_[layer].narrow(0, 0, length_ + added)};
}

}  // namespace qianli::nn
