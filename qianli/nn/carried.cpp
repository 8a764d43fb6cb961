#include "qianli/nn/carried.h"

namespace qianli::nn {
namespace {

// Whether the first attention from layer `next` on takes something from the layers before it.
template <class Takes>
bool next_attention(const model::ModelSpec& spec, int64_t next, const Takes& takes) {
  for (int64_t l = next; l < spec.num_layers; ++l) {
    const model::LayerSpec layer = spec.layer(l);
    if (layer.has_attention()) return takes(layer);
  }
  return false;
}

}  // namespace

at::Tensor Stream::add_and_norm(const Norm& norm) {
  if (!residual.defined()) {
    residual = branch;
    return norm(residual);
  }
  const auto [y, sum] = norm.add(branch, residual);
  residual = sum;
  return y;
}

std::vector<at::Tensor> Carried::packed() const {
  const at::Tensor hidden =
      stream.residual.defined() ? stream.branch + stream.residual : stream.branch;
  return {hidden, key, value, chosen_keys, shortcut};
}

Carried Carried::unpacked(const std::vector<at::Tensor>& tensors) {
  if (tensors.empty()) return {};
  return {.stream = {.residual = {}, .branch = tensors.at(0)},
          .key = tensors.at(1),
          .value = tensors.at(2),
          .chosen_keys = tensors.at(3),
          .shortcut = tensors.at(4)};
}

void drop_unread(Carried& carried, const model::ModelSpec& spec, int64_t next) {
  if (!next_attention(spec, next, [](const auto& layer) { return layer.shares_key_value; }))
    carried.key = carried.value = at::Tensor();
  if (!next_attention(spec, next, [](const auto& layer) { return !layer.owns_indexer; }))
    carried.chosen_keys = at::Tensor();
  const bool joins = spec.moe && spec.moe->shortcut && next < spec.num_layers && next % 2 == 1;
  if (!joins) carried.shortcut = at::Tensor();
}

}  // namespace qianli::nn
