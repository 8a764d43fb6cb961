#include "qianli/convert/megatron/adapter_modules.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "qianli/base/error.h"

namespace qianli::convert {
namespace {

using formats::TensorSpec;

constexpr std::string_view kWeight = ".weight";

// Of Hugging Face's, in the order of the layer's rows.
std::vector<std::string> modules_of(const Table& base, const AdaptedLayer& layer) {
  std::vector<std::string> names;
  for (const ForeignTensor* weight : layer.weights) {
    for (const Part& part : weight->parts) {
      for (const model::ForeignPiece& piece : base[part.parameter].hugging_face) {
        const bool apart = piece.first_row >= part.first_row + part.rows ||
                           piece.first_row + piece.rows <= part.first_row;
        if (apart || !piece.name.ends_with(kWeight)) continue;
        const std::string name = piece.name.substr(0, piece.name.size() - kWeight.size());
        if (std::ranges::find(names, name) == names.end()) names.push_back(name);
      }
    }
  }
  return names;
}

std::vector<std::byte> bytes_of(const formats::TensorSource& source, const TensorSpec& tensor) {
  std::vector<std::byte> bytes(tensor.num_bytes());
  source.read(tensor, bytes);
  return bytes;
}

}  // namespace

AdaptedModules::AdaptedModules(const Adapter& adapter, const Table& base,
                               const std::vector<ForeignTensor>& tensors,
                               const std::vector<MegatronRank>& ranks)
    : adapter_(adapter) {
  check_kind();
  for (AdaptedLayer& layer : linear_layers(tensors, ranks)) {
    Group group{std::move(layer), {}};
    group.modules = modules_of(base, group.layer);
    if (!present(group).empty()) groups_.push_back(std::move(group));
  }
  place_modules();
  check_scale();
}

void AdaptedModules::refuse(const std::string& problem) const {
  throw CheckpointError("convert",
                        fmt::format("{}: {}", adapter_.tensors.source->source(), problem));
}

void AdaptedModules::check_kind() const {
  if (adapter_.config.use_dora()) refuse("expected LoRA, got DoRA, which Megatron's layers lack");
  if (!adapter_.tensors.whole.empty()) {
    refuse(fmt::format("expected matrices of LoRA alone, got {} saved whole",
                       adapter_.tensors.whole.begin()->first));
  }
  if (adapter_.tensors.modules.empty()) refuse("expected modules with an adapter, found none");
}

std::vector<std::string> AdaptedModules::present(const Group& group) const {
  std::vector<std::string> names = group.modules;
  std::erase_if(names, [&](const auto& n) { return !adapter_.tensors.modules.contains(n); });
  return names;
}

bool AdaptedModules::is_shared() const {
  const formats::TensorSource& source = *adapter_.tensors.source;
  const int64_t rank = adapter_.tensors.modules.begin()->second.a->shape[0];
  for (const Group& group : groups_) {
    const auto names = present(group);
    const TensorSpec& first = *adapter_.tensors.modules.at(names.front()).a;
    const std::vector<std::byte> expected = bytes_of(source, first);
    for (const std::string& name : names) {
      const TensorSpec& a = *adapter_.tensors.modules.at(name).a;
      if (a.shape[0] != rank || a.dtype != first.dtype || bytes_of(source, a) != expected)
        return false;
    }
  }
  return true;
}

void AdaptedModules::place_modules() {
  const bool shared = is_shared();
  for (const Group& group : groups_) {
    int64_t offset = 0;
    for (const std::string& name : present(group)) {
      const int64_t rank = adapter_.tensors.modules.at(name).a->shape[0];
      if (adapter_.config.rank(name) != rank) {
        refuse(fmt::format("{}: expected rank {} as adapter_config.json says, got {}", name,
                           adapter_.config.rank(name), rank));
      }
      if (!places_.emplace(name, ModulePlace{offset, rank}).second)
        refuse(fmt::format("{} lies in several of Megatron's layers", name));
      rank_ = std::max(rank_, offset + rank);
      if (!shared) offset += rank;
    }
  }
  if (rank_ > kMaxAdapterRank) refuse(fmt::format("expected smaller ranks, got {} in all", rank_));
}

void AdaptedModules::check_scale() {
  scale_ = adapter_.config.scale(adapter_.tensors.modules.begin()->first);
  for (const auto& [name, module] : adapter_.tensors.modules) {
    if (!places_.contains(name))
      refuse(fmt::format("{} is no part of a linear layer of Megatron's", name));
    if (adapter_.config.scale(name) != scale_)
      refuse(fmt::format("expected one scale for all modules, got another for {}", name));
  }
}

std::vector<AdaptedLayer> AdaptedModules::layers() const {
  std::vector<AdaptedLayer> layers;
  for (const Group& group : groups_) {
    layers.push_back(group.layer);
    layers.back().a = ".lora_A.default.weight";
    layers.back().b = ".lora_B.default.weight";
    layers.back().rank = rank_;
  }
  return layers;
}

std::vector<std::string> AdaptedModules::kinds() const {
  std::set<std::string> kinds;
  for (const Group& group : groups_)
    kinds.insert(group.layer.name.substr(group.layer.name.rfind('.') + 1));
  return {kinds.begin(), kinds.end()};
}

std::vector<std::string> AdaptedModules::beside(const std::string& module) const {
  for (const Group& group : groups_) {
    if (std::ranges::find(group.modules, module) != group.modules.end()) return present(group);
  }
  return {};
}

}  // namespace qianli::convert
