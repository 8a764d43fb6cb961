#include "qianli/convert/megatron/layout.h"

#include <fmt/core.h>

#include <utility>

#include "qianli/base/error.h"

namespace qianli::convert {
namespace {

void expect(bool holds, const std::string& problem, const std::string& hint = {}) {
  if (!holds) throw ConfigError("convert", problem, hint);
}

// Layers that take the keys and values of one before them stay with it.
void check_sharing(const model::ModelSpec& spec,
                   const std::vector<std::vector<plan::ChunkLayers>>& placed) {
  for (const auto& chunks : placed) {
    for (const plan::ChunkLayers& chunk : chunks) {
      if (chunk.layers.empty()) continue;
      const int64_t first = chunk.layers.front().global;
      expect(first % spec.key_value_share_factor == 0,
             fmt::format("expected stages to begin with a layer that has keys and values of its "
                         "own (a multiple of {}), got {}",
                         spec.key_value_share_factor, first));
    }
  }
}

// Chunks of a stage.
int64_t virtual_stages(const plan::LayerSplit& split, int64_t layers) {
  const int64_t total = split.layers + static_cast<int64_t>(split.noop_layers.size());
  const int64_t stage = total / split.stages;
  expect(split.table.empty(), "layers per stage exclude virtual stages");
  expect(total % split.stages == 0 && layers < stage && stage % layers == 0,
         fmt::format("expected layers of a stage ({} / {}) to be a multiple, not the same, of "
                     "layers per virtual stage ({})",
                     total, split.stages, layers));
  return stage / layers;
}

}  // namespace

int64_t own_layers(const model::ModelSpec& spec) { return spec.moe && spec.moe->shortcut ? 2 : 1; }

std::vector<std::vector<plan::ChunkLayers>> place_layers(const model::ModelSpec& spec,
                                                         const MegatronLayout& layout) {
  plan::LayerSplit split{.layers = spec.num_layers / own_layers(spec),
                         .stages = layout.pipeline,
                         .folded = layout.dual_pipe_v,
                         .noop_layers = layout.noop_layers};
  for (const int64_t count : layout.layers_per_stage) split.table.push_back({count});
  if (layout.layers_per_virtual_stage > 0 && !layout.dual_pipe_v)
    split.chunks = virtual_stages(split, layout.layers_per_virtual_stage);
  auto placed = plan::place_layers(split);
  check_sharing(spec, placed);
  return placed;
}

int64_t padded_vocab_size(const model::ModelSpec& spec, const MegatronLayout& layout) {
  const int64_t multiple = layout.vocab_divisor * layout.tensor;
  const int64_t padded = layout.padded_vocab_size > 0
                             ? layout.padded_vocab_size
                             : (spec.vocab_size + multiple - 1) / multiple * multiple;
  expect(padded >= spec.vocab_size && padded % layout.tensor == 0,
         fmt::format(
             "expected a padded vocabulary of at least {} and a multiple of tensor ({}), got {}",
             spec.vocab_size, layout.tensor, padded));
  return padded;
}

void check_layout(const model::ModelSpec& spec, const MegatronLayout& layout) {
  for (const auto& [name, value] : {std::pair{"tensor", layout.tensor},
                                    {"pipeline", layout.pipeline},
                                    {"expert", layout.expert},
                                    {"vocab_divisor", layout.vocab_divisor}}) {
    expect(value >= 1 && value <= 65536,
           fmt::format("expected {} between 1 and 65536, got {}", name, value));
  }
  const auto divides = [&](int64_t parts, const char* flag, int64_t whole, const char* whole_name) {
    expect(whole % parts == 0,
           fmt::format("expected {} to be a multiple of {} {}, got {}", whole_name, flag, parts,
                       whole),
           fmt::format("give a {} that divides {}", flag, whole));
  };
  divides(layout.tensor, "--tensor", spec.num_attention_heads, "attention heads");
  divides(layout.tensor, "--tensor", spec.sliding_num_attention_heads.value_or(0),
          "attention heads of layers with a window");
  if (!spec.latent_attention) {
    divides(layout.tensor, "--tensor", spec.num_query_groups, "key/value heads");
    divides(layout.tensor, "--tensor", spec.sliding_num_query_groups.value_or(0),
            "key/value heads of layers with a window");
  }
  divides(layout.tensor, "--tensor", spec.ffn_hidden_size, "the MLP's width");
  if (!spec.moe) {
    expect(layout.expert == 1,
           fmt::format("expected --expert 1 for a model without experts, got {}", layout.expert));
    return;
  }
  expect(
      layout.expert_tensor == 0 || layout.expert_tensor == 1 ||
          layout.expert_tensor == layout.tensor,
      fmt::format("expected --expert-tensor 1 or {}, got {}", layout.tensor, layout.expert_tensor));
  if (layout.expert_tensor == 1 && layout.tensor > 1) {
    expect(layout.tensor % layout.expert == 0 || layout.expert % layout.tensor == 0,
           fmt::format("expected one of --tensor and --expert to be a multiple of the other with "
                       "--expert-tensor 1, got {} "
                       "and {}",
                       layout.tensor, layout.expert));
    expect(!layout.tensor_extends_expert,
           "--expert-tensor 1 excludes experts spread over tensor ranks (--extend-experts)");
  }
  const bool extended = layout.tensor_extends_expert;
  divides(layout.expert * (extended ? layout.tensor : 1),
          extended ? "--expert times --tensor" : "--expert", spec.moe->num_experts, "experts");
  divides(layout.experts_cut(), layout.expert_tensor > 0 ? "--expert-tensor" : "--tensor",
          spec.moe->ffn_hidden_size, "an expert's width");
  divides(layout.tensor, "--tensor", spec.moe->shared_ffn_hidden_size, "the shared expert's width");
}

std::vector<MegatronRank> megatron_ranks(const MegatronLayout& layout) {
  std::vector<MegatronRank> ranks;
  for (int64_t p = 0; p < layout.pipeline; ++p) {
    for (int64_t e = 0; e < layout.expert; ++e) {
      for (int64_t t = 0; t < layout.tensor; ++t) {
        // Experts that are not cut over the tensor ranks spread over them: one file for each pair
        // in use.
        const bool spread = layout.expert_tensor == 1 && layout.tensor > 1 && layout.expert > 1;
        if (spread && t % layout.expert != e && e % layout.tensor != t) continue;
        ranks.push_back({.tensor = t, .pipeline = p, .expert = e});
      }
    }
  }
  return ranks;
}

std::string rank_folder(const MegatronLayout& layout, const MegatronRank& rank) {
  std::string name = fmt::format("mp_rank_{:02}", rank.tensor);
  if (layout.pipeline > 1) name += fmt::format("_{:03}", rank.pipeline);
  if (layout.expert > 1) name += fmt::format("_{:03}", rank.expert);
  return name;
}

}  // namespace qianli::convert
