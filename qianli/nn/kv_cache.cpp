#include "qianli/nn/kv_cache.h"

#include <ATen/ops/empty.h>
#include <fmt/core.h>

#include "qianli/base/error.h"

namespace qianli::nn {
namespace {

int64_t latent_size(const model::LatentAttention& latent) {
  return latent.kv_lora_rank + latent.qk_rope_head_dim;
}

}  // namespace

KvCache::KvCache(const model::ModelSpec& spec, int64_t capacity, at::ScalarType dtype,
                 at::Device device)
    : capacity_(capacity), layers_(static_cast<size_t>(spec.num_layers)) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const model::LayerSpec kind = spec.layer(l);
    Layer& layer = layers_[static_cast<size_t>(l)];
    layer.recurrent = make_recurrent_state(spec, l, options);
    if (!kind.has_attention()) continue;
    if (spec.latent_attention) {
      layer.latents = at::empty({capacity, latent_size(*spec.latent_attention)}, options);
      if (kind.owns_indexer)
        layer.index_keys = at::empty({capacity, spec.indexer->head_dim}, options);
      continue;
    }
    layer.keys = at::empty({kind.num_groups, capacity, kind.head_dim}, options);
    layer.values = at::empty({kind.num_groups, capacity, kind.head_dim}, options);
  }
}

int64_t KvCache::elements_per_token(const model::ModelSpec& spec) {
  int64_t elements = 0;
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const model::LayerSpec kind = spec.layer(l);
    if (!kind.has_attention()) continue;
    elements +=
        spec.latent_attention ? latent_size(*spec.latent_attention) : 2 * kind.key_value_size();
    if (kind.owns_indexer) elements += spec.indexer->head_dim;
  }
  return elements;
}

int64_t KvCache::fixed_bytes(const model::ModelSpec& spec, at::ScalarType dtype) {
  int64_t bytes = 0;
  for (int64_t l = 0; l < spec.num_layers; ++l) bytes += recurrent_state_bytes(spec, l, dtype);
  return bytes;
}

int64_t KvCache::truncate(int64_t length) {
  if (length >= length_) return length_;
  length_ = length;
  for (Layer& layer : layers_) {
    if (!layer.recurrent.defined()) continue;
    layer.recurrent.reset();
    length_ = 0;
  }
  return length_;
}

at::Tensor KvCache::append_to(const at::Tensor& storage, const at::Tensor& rows) const {
  const int64_t added = rows.size(0);
  if (length_ + added > capacity_) {
    throw MemoryError("kv_cache",
                      fmt::format("expected at most {} tokens, got {}", capacity_, length_ + added),
                      "ask for fewer new tokens");
  }
  storage.narrow(0, length_, added).copy_(rows);
  return storage.narrow(0, 0, length_ + added);
}

KvCache::KeysValues KvCache::append(int64_t layer, const at::Tensor& k, const at::Tensor& v) {
  const Layer& to = layers_[static_cast<size_t>(layer)];
  return {append_to(to.keys.transpose(0, 1), k), append_to(to.values.transpose(0, 1), v)};
}

at::Tensor KvCache::append_latent(int64_t layer, const at::Tensor& latent) {
  return append_to(layers_[static_cast<size_t>(layer)].latents, latent);
}

at::Tensor KvCache::append_index_keys(int64_t layer, const at::Tensor& keys) {
  return append_to(layers_[static_cast<size_t>(layer)].index_keys, keys);
}

}  // namespace qianli::nn
