#include "qianli/nn/compressed_state.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace qianli::nn {
namespace {

constexpr int64_t kFirstRoom = 16;

CompressorState make_state(const model::LayerSpec& layer, int64_t size,
                           const at::TensorOptions& options) {
  const int64_t channels = layer.owns_indexer ? 2 * size : size;
  return {.keys = at::empty({0, size}, options),
          .kv = at::empty({0, channels}, options),
          .gate = at::empty({0, channels}, options)};
}

void forget(CompressorState& state) {
  if (!state.keys.defined()) return;
  state.keys = state.keys.narrow(0, 0, 0).clone();  // its room is free
  state.count = 0;
  state.kv = state.kv.narrow(0, 0, 0).clone();
  state.gate = state.gate.narrow(0, 0, 0).clone();
}

// Of the keys of a compressed layer, its indexer's included.
int64_t key_elements(const model::ModelSpec& spec, const model::LayerSpec& layer) {
  return spec.head_dim + (layer.owns_indexer ? spec.indexer->head_dim : 0);
}

}  // namespace

void CompressorState::append(const at::Tensor& rows) {
  const int64_t needed = count + rows.size(0);
  if (needed > keys.size(0)) {  // twice the room, so that appending costs the same on average
    at::Tensor wider =
        at::empty({std::max({needed, 2 * keys.size(0), kFirstRoom}), keys.size(1)}, keys.options());
    wider.narrow(0, 0, count).copy_(keys.narrow(0, 0, count));
    keys = wider;
  }
  keys.narrow(0, count, rows.size(0)).copy_(rows);
  count = needed;
}

void CompressedStates::reset(int64_t slot) {
  if (!defined()) return;
  CompressedState& state = slots[static_cast<size_t>(slot)];
  state.recent = state.recent.narrow(0, 0, 0).clone();
  forget(state.keys);
  forget(state.index_keys);
}

void CompressedStates::copy(int64_t from, int64_t to) {
  if (!defined()) return;
  CompressedState state = slots[static_cast<size_t>(from)];
  // All else is replaced, never written into.
  if (state.keys.keys.defined()) state.keys.keys = state.keys.keys.clone();
  if (state.index_keys.keys.defined()) state.index_keys.keys = state.index_keys.keys.clone();
  slots[static_cast<size_t>(to)] = std::move(state);
}

CompressedStates make_compressed_states(const model::ModelSpec& spec, int64_t index, int64_t slots,
                                        const at::TensorOptions& options) {
  const model::LayerSpec layer = spec.layer(index);
  CompressedStates states;
  if (!spec.compressed_attention || !layer.has_attention()) return states;
  for (int64_t slot = 0; slot < slots; ++slot) {
    CompressedState state{.recent = at::empty({0, spec.head_dim}, options)};
    if (layer.is_compressed()) state.keys = make_state(layer, spec.head_dim, options);
    if (layer.owns_indexer) state.index_keys = make_state(layer, spec.indexer->head_dim, options);
    states.slots.push_back(std::move(state));
  }
  return states;
}

int64_t compressed_elements_per_token(const model::ModelSpec& spec, int64_t index) {
  const model::LayerSpec layer = spec.layer(index);
  if (!layer.is_compressed()) return 0;
  return (key_elements(spec, layer) + layer.compression - 1) / layer.compression;
}

int64_t compressed_fixed_elements(const model::ModelSpec& spec, int64_t index) {
  const model::LayerSpec layer = spec.layer(index);
  if (!spec.compressed_attention || !layer.has_attention()) return 0;
  const int64_t window = layer.window * spec.head_dim;
  if (!layer.is_compressed()) return window;
  const int64_t overlap = layer.owns_indexer ? 2 : 1;  // windows, and channels of each
  return window + 2 * overlap * layer.compression * overlap * key_elements(spec, layer);
}

}  // namespace qianli::nn
