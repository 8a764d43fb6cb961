#include "qianli/convert/megatron/tensors.h"

#include <fmt/core.h>

#include <set>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/convert/megatron/rank.h"

namespace qianli::convert {
namespace {

// What a Megatron checkpoint has no tensors for.
void refuse_what_has_no_place(const model::ModelSpec& spec, const MegatronLayout& layout) {
  const auto refuse = [&](bool present, const std::string& what) {
    if (!present) return;
    throw ConfigError(
        "convert", fmt::format("expected a model that Megatron's layout can hold, got {} with {}",
                               spec.family, what));
  };
  const bool mindspeed = layout.names == MegatronNames::kMindSpeed;
  refuse(spec.moe && spec.moe->shortcut && !mindspeed,
         "shortcut experts, which only MindSpeed has names for");
  refuse(spec.key_value_share_factor > 1 && !mindspeed,
         "keys and values shared between layers, which only MindSpeed has names for");
  refuse(spec.attention_gate == model::AttentionGate::kHead,
         "a gate for each head, which Megatron has no tensor for");
  refuse(spec.compressed_attention.has_value(),
         "compressed keys, which Megatron has no tensors for");
  refuse(spec.hyper_connections.has_value(),
         "a residual stream of several rows, which Megatron has no tensors for");
  refuse(spec.moe && spec.moe->num_hash_layers > 0,
         "experts by token, which Megatron has no tensor for");
  refuse(spec.moe && spec.moe->expert_bias && layout.experts == ExpertStorage::kGrouped,
         "biases in experts, which grouped storage has no place for");
  const bool recurrent = spec.gated_delta_net || spec.mamba2;
  refuse(recurrent && layout.tensor > 1,
         "linear attention or state-space layers, which are not cut: tensor must be 1");
  const bool legacy = layout.names == MegatronNames::kLegacy;
  for (const auto& [present, what] :
       {std::pair{spec.moe.has_value(), "experts"},
        {spec.latent_attention.has_value(), "latent attention"},
        {recurrent, "linear attention or state-space layers"},
        {spec.mtp.num_layers > 0, "multi-token prediction"},
        {spec.qk_norm != model::QkNorm::kNone, "norms of queries and keys"},
        {spec.norm_placement == model::NormPlacement::kSandwich,
         "norms behind attention and MLP"}}) {
    refuse(legacy && present, fmt::format("{}, which legacy names do not have", what));
  }
}

}  // namespace

std::vector<ForeignTensor> megatron_tensors(const model::ModelSpec& spec, const Table& table,
                                            const MegatronLayout& layout) {
  refuse_what_has_no_place(spec, layout);
  check_layout(spec, layout);
  const auto stages = place_layers(spec, layout);
  const auto ranks = megatron_ranks(layout);
  std::vector<ForeignTensor> tensors;
  for (size_t file = 0; file < ranks.size(); ++file) {
    const auto& chunks = stages[static_cast<size_t>(ranks[file].pipeline)];
    for (size_t c = 0; c < chunks.size(); ++c) {
      const std::string key = chunks.size() == 1 ? "model." : fmt::format("model{}.", c);
      RankWriter(spec, table, layout, ranks[file], file, tensors).write(key, chunks[c]);
    }
  }
  // What lies in several files is read from the first.
  std::set<std::tuple<size_t, int64_t, int64_t>> seen;
  for (ForeignTensor& tensor : tensors) {
    bool known = !tensor.parts.empty();
    for (const Part& part : tensor.parts) {
      known = !seen.insert({part.parameter, part.first_row, part.first_column}).second && known;
    }
    tensor.copy = known;
  }
  return tensors;
}

std::vector<std::string> modules_with_extra_state(const std::vector<ForeignTensor>& tensors,
                                                  size_t file) {
  std::set<std::string> modules;
  for (const ForeignTensor& tensor : tensors) {
    if (tensor.file != file) continue;
    const std::string& name = tensor.name;
    const size_t end = name.rfind('.');
    const std::string module = name.substr(0, end);
    const std::string last = module.substr(module.rfind('.') + 1);
    if (last.starts_with("linear_") || last == "output_layer" || last == "eh_proj")
      modules.insert(module);
  }
  return {modules.begin(), modules.end()};
}

}  // namespace qianli::convert
