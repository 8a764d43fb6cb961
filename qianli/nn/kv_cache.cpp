#include "qianli/nn/kv_cache.h"

#include <ATen/TensorIndexing.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/core.h>

#include <cstring>

#include "qianli/base/error.h"

namespace qianli::nn {
namespace {

// Of a sequence, whose attention reads the blocks where they lie.
constexpr int64_t kFewQueries = 8;

// Of all heads.
void copy_row(const at::Tensor& pool, int64_t block, int64_t offset, const at::Tensor& rows,
              int64_t row) {
  const auto size = static_cast<int64_t>(pool.element_size());
  auto* to = static_cast<std::byte*>(pool.data_ptr()) +
             (block * pool.stride(0) + offset * pool.stride(2)) * size;
  const auto* from = static_cast<const std::byte*>(rows.data_ptr()) + row * rows.stride(0) * size;
  for (int64_t head = 0; head < rows.size(1); ++head) {
    std::memcpy(to + head * pool.stride(1) * size, from + head * rows.stride(1) * size,
                static_cast<size_t>(rows.size(2) * size));
  }
}

int64_t latent_size(const model::LatentAttention& latent) {
  return latent.kv_lora_rank + latent.qk_rope_head_dim;
}

}  // namespace

KvCache::KvCache(const model::ModelSpec& spec, const CacheSizes& sizes, at::ScalarType dtype,
                 at::Device device)
    : sizes_(sizes),
      device_(device),
      layers_(static_cast<size_t>(spec.num_layers + sizes.ahead_layers)) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  for (int64_t l = 0; l < spec.num_layers + sizes.ahead_layers; ++l) {
    // Rows of shared blocks may be read that no head has written.
    const bool zeros = l >= spec.num_layers;
    const auto pool = [&](int64_t heads, int64_t dim) {
      const std::vector<int64_t> shape{sizes.blocks, heads, sizes.block_size, dim};
      return zeros ? at::zeros(shape, options) : at::empty(shape, options);
    };
    const model::LayerSpec kind = spec.layer(l);
    Layer& layer = layers_[static_cast<size_t>(l)];
    layer.recurrent = make_recurrent_states(spec, l, sizes.slots, options);
    layer.compressed = make_compressed_states(spec, l, sizes.slots, options);
    if (!kind.has_attention() || spec.compressed_attention) continue;
    if (spec.latent_attention) {
      layer.latents = pool(1, latent_size(*spec.latent_attention));
      if (kind.owns_indexer) layer.index_keys = pool(1, spec.indexer->head_dim);
      continue;
    }
    layer.keys = pool(kind.num_groups, kind.head_dim);
    layer.values = pool(kind.num_groups, kind.head_dim);
  }
}

KvCache::KvCache(const model::ModelSpec& spec, int64_t capacity, at::ScalarType dtype,
                 at::Device device)
    : KvCache(spec, CacheSizes{.blocks = 1, .block_size = capacity, .slots = 1}, dtype, device) {
  own_.blocks = {0};
  sequences_ = {&own_};
}

int64_t KvCache::elements_per_token(const model::ModelSpec& spec, int64_t ahead_layers) {
  int64_t elements = 0;
  for (int64_t l = 0; l < spec.num_layers + ahead_layers; ++l) {
    const model::LayerSpec kind = spec.layer(l);
    if (!kind.has_attention()) continue;
    if (spec.compressed_attention) {
      elements += compressed_elements_per_token(spec, l);
      continue;
    }
    elements +=
        spec.latent_attention ? latent_size(*spec.latent_attention) : 2 * kind.key_value_size();
    if (kind.owns_indexer) elements += spec.indexer->head_dim;
  }
  return elements;
}

int64_t KvCache::fixed_bytes(const model::ModelSpec& spec, at::ScalarType dtype) {
  int64_t bytes = 0;
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    bytes += recurrent_state_bytes(spec, l, dtype) +
             compressed_fixed_elements(spec, l) * static_cast<int64_t>(c10::elementSize(dtype));
  }
  return bytes;
}

void KvCache::begin(std::vector<CachedSequence*> sequences) { sequences_ = std::move(sequences); }

void KvCache::advance(const std::vector<int64_t>& segment_starts) {
  for (size_t s = 0; s < sequences_.size(); ++s)
    sequences_[s]->length += segment_starts[s + 1] - segment_starts[s];
}

void KvCache::check_room(size_t segment, int64_t added) const {
  const CachedSequence& sequence = *sequences_[segment];
  const auto room = static_cast<int64_t>(sequence.blocks.size()) * sizes_.block_size;
  if (sequence.length + added <= room) return;
  throw MemoryError(
      "kv_cache", fmt::format("expected at most {} tokens, got {}", room, sequence.length + added),
      "ask for fewer new tokens");
}

KvCache::Places KvCache::places(const std::vector<int64_t>& segment_starts) const {
  const int64_t size = sizes_.block_size;
  std::vector<int64_t> blocks, offsets;
  for (size_t s = 0; s + 1 < segment_starts.size(); ++s) {
    const CachedSequence& sequence = *sequences_[s];
    const int64_t added = segment_starts[s + 1] - segment_starts[s];
    check_room(s, added);
    for (int64_t row = sequence.length; row < sequence.length + added; ++row) {
      blocks.push_back(sequence.blocks[static_cast<size_t>(row / size)]);
      offsets.push_back(row % size);
    }
  }
  Places places;
  if (blocks.empty()) return {.consecutive = true};
  if (segment_starts.size() == 2 && blocks.front() == blocks.back())
    return {.consecutive = true, .block = blocks[0], .offset = offsets[0]};
  places.blocks = at::tensor(blocks, at::kLong).to(device_);
  places.offsets = at::tensor(offsets, at::kLong).to(device_);
  return places;
}

// pool: [blocks, heads, size, D]; rows: [T, heads, D].
void KvCache::put(const at::Tensor& pool, const at::Tensor& rows, const Places& places) {
  const bool plain = pool.is_cpu() && pool.scalar_type() == rows.scalar_type() &&
                     pool.stride(3) == 1 && rows.stride(2) == 1;
  if (plain) {
    const auto* blocks = places.consecutive ? nullptr : places.blocks.data_ptr<int64_t>();
    const auto* offsets = places.consecutive ? nullptr : places.offsets.data_ptr<int64_t>();
    for (int64_t row = 0; row < rows.size(0); ++row) {
      copy_row(pool, blocks ? blocks[row] : places.block,
               offsets ? offsets[row] : places.offset + row, rows, row);
    }
    return;
  }
  if (places.consecutive) {
    pool[places.block].narrow(1, places.offset, rows.size(0)).copy_(rows.transpose(0, 1));
    return;
  }
  pool.transpose(1, 2).index_put_({places.blocks, places.offsets}, rows);
}

void KvCache::store(int64_t layer, const at::Tensor& k, const at::Tensor& v,
                    const std::vector<int64_t>& segment_starts) {
  const Layer& to = layers_[static_cast<size_t>(layer)];
  const Places at = places(segment_starts);
  put(to.keys, k, at);
  put(to.values, v, at);
}

void KvCache::store_latents(int64_t layer, const at::Tensor& latents,
                            const std::vector<int64_t>& segment_starts) {
  put(layers_[static_cast<size_t>(layer)].latents, latents.unsqueeze(1), places(segment_starts));
}

void KvCache::store_index_keys(int64_t layer, const at::Tensor& keys,
                               const std::vector<int64_t>& segment_starts) {
  put(layers_[static_cast<size_t>(layer)].index_keys, keys.unsqueeze(1), places(segment_starts));
}

std::vector<ops::BlockTable> KvCache::tables(const std::vector<int64_t>& q_starts) const {
  std::vector<ops::BlockTable> tables;
  for (size_t s = 0; s + 1 < q_starts.size(); ++s) {
    const CachedSequence& sequence = *sequences_[s];
    const int64_t length = sequence.length + q_starts[s + 1] - q_starts[s];
    const auto used = static_cast<size_t>((length + sizes_.block_size - 1) / sizes_.block_size);
    tables.push_back({std::span(sequence.blocks).first(used), length});
  }
  return tables;
}

ops::BlockTable KvCache::shorter(const ops::BlockTable& table, int64_t rows) const {
  const int64_t length = table.length - rows;
  const auto used = static_cast<size_t>((length + sizes_.block_size - 1) / sizes_.block_size);
  return {table.blocks.first(used), length};
}

at::Tensor KvCache::attend_to(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const ops::AttentionLayout& layout, ops::Parameter* sinks) const {
  const std::vector<ops::BlockTable> all = tables(layout.q_starts);
  const bool in_blocks = sizes_.blocks > 1 && !layout.chosen.defined();
  const int64_t most = q.is_cpu() ? kFewQueries : 1;
  size_t few = 0;  // segments of few queries at the front
  std::vector<ops::BlockTable> each;
  for (; in_blocks && few < all.size(); ++few) {
    const int64_t queries = layout.q_starts[few + 1] - layout.q_starts[few];
    if (queries > most) break;
    // Each as if it were the last: the keys behind it are not its own.
    for (int64_t behind = queries; behind-- > 0;) each.push_back(shorter(all[few], behind));
  }
  const auto count = static_cast<int64_t>(each.size());
  std::vector<at::Tensor> parts;
  if (count > 0)
    parts.push_back(ops::paged_attention(q.narrow(0, 0, count), k, v, each, layout, sinks));
  if (few < all.size()) {
    const auto rest = std::span(all).subspan(few);
    ops::AttentionLayout whole = layout;
    whole.q_starts.clear();
    for (size_t s = few; s < layout.q_starts.size(); ++s)
      whole.q_starts.push_back(layout.q_starts[s] - count);
    const at::Tensor keys = ops::gather_blocks(k, rest, whole.k_starts);
    parts.push_back(ops::attention(q.narrow(0, count, q.size(0) - count), keys,
                                   ops::gather_blocks(v, rest, whole.k_starts), whole, sinks));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 0);
}

at::Tensor KvCache::attend(int64_t layer, const at::Tensor& q, const ops::AttentionLayout& layout,
                           ops::Parameter* sinks) const {
  const Layer& of = layers_[static_cast<size_t>(layer)];
  return attend_to(q, of.keys, of.values, layout, sinks);
}

at::Tensor KvCache::attend_latents(int64_t layer, const at::Tensor& q, int64_t rank,
                                   const ops::AttentionLayout& layout) const {
  const at::Tensor& latents = layers_[static_cast<size_t>(layer)].latents;
  return attend_to(q, latents, latents.narrow(3, 0, rank), layout, nullptr);
}

at::Tensor KvCache::index_keys(int64_t layer, size_t segment, int64_t added) const {
  const CachedSequence& sequence = *sequences_[segment];
  const int64_t length = sequence.length + added, size = sizes_.block_size;
  const auto used = static_cast<size_t>((length + size - 1) / size);
  const ops::BlockTable table{std::span(sequence.blocks).first(used), length};
  std::vector<int64_t> starts;
  return ops::gather_blocks(layers_[static_cast<size_t>(layer)].index_keys, {&table, 1}, starts)
      .squeeze(1);
}

std::vector<int64_t> KvCache::slots() const {
  std::vector<int64_t> slots;
  for (const CachedSequence* sequence : sequences_) slots.push_back(sequence->slot);
  return slots;
}

std::vector<CompressedState*> KvCache::compressed(int64_t layer,
                                                  const std::vector<int64_t>& segment_starts) {
  std::vector<CompressedState*> states;
  CompressedStates& of = layers_[static_cast<size_t>(layer)].compressed;
  for (size_t s = 0; s + 1 < segment_starts.size(); ++s) {
    check_room(s, segment_starts[s + 1] - segment_starts[s]);
    states.push_back(&of.slots[static_cast<size_t>(sequences_[s]->slot)]);
  }
  return states;
}

void KvCache::reset_slot(int64_t slot) {
  for (Layer& layer : layers_) {
    layer.recurrent.reset(slot);
    layer.compressed.reset(slot);
  }
}

void KvCache::copy_slot(int64_t from, int64_t to) {
  for (Layer& layer : layers_) {
    layer.recurrent.copy(from, to);
    layer.compressed.copy(from, to);
  }
}

void KvCache::copy_block(int64_t from, int64_t to) {
  for (const Layer& layer : layers_) {
    for (const at::Tensor& pool : {layer.keys, layer.values, layer.latents, layer.index_keys}) {
      if (pool.defined()) pool[to].copy_(pool[from]);
    }
  }
}

int64_t KvCache::truncate(int64_t length) {
  if (length >= own_.length) return own_.length;
  own_.length = length;
  for (Layer& layer : layers_) {
    if (!layer.recurrent.defined() && !layer.compressed.defined()) continue;
    layer.recurrent.reset(0);
    layer.compressed.reset(0);
    own_.length = 0;
  }
  return own_.length;
}

}  // namespace qianli::nn
