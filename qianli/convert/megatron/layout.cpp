#include "qianli/convert/megatron/layout.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "qianli/base/error.h"

namespace qianli::convert {
namespace {

void expect(bool holds, const std::string& problem, const std::string& hint = {}) {
  if (!holds) throw ConfigError("convert", problem, hint);
}

// The model's layers at their positions among the no-op ones: -1 for those that do nothing.
std::vector<int64_t> enlarged(const model::ModelSpec& spec, const MegatronLayout& layout) {
  const auto total =
      spec.num_layers / own_layers(spec) + static_cast<int64_t>(layout.noop_layers.size());
  std::vector<int64_t> positions(static_cast<size_t>(total), 0);
  for (const int64_t position : layout.noop_layers) {
    expect(position >= 0 && position < total,
           fmt::format("expected no-op layers between 0 and {}, got {}", total - 1, position));
    expect(positions[static_cast<size_t>(position)] == 0,
           fmt::format("no-op layer {} is given twice", position));
    positions[static_cast<size_t>(position)] = -1;
  }
  int64_t next = 0;
  for (int64_t& position : positions) {
    if (position == 0) position = next++;
  }
  return positions;
}

Chunk chunk_of(const std::vector<int64_t>& positions, int64_t first, int64_t count) {
  Chunk chunk;
  for (int64_t local = 0; local < count; ++local) {
    const int64_t global = positions[static_cast<size_t>(first + local)];
    if (global >= 0) chunk.layers.push_back({local, global});
  }
  return chunk;
}

std::vector<std::vector<Chunk>> folded(const std::vector<int64_t>& positions, int64_t stages) {
  const auto total = static_cast<int64_t>(positions.size());
  expect(total % (2 * stages) == 0,
         fmt::format("expected layers to be a multiple of {} for dualpipev, got {}", 2 * stages,
                     total));
  const int64_t count = total / (2 * stages);
  std::vector<std::vector<Chunk>> placed;
  for (int64_t stage = 0; stage < stages; ++stage) {
    placed.push_back({chunk_of(positions, stage * count, count),
                      chunk_of(positions, (2 * stages - 1 - stage) * count, count)});
  }
  placed.front().front().first = true;
  placed.front().back().last = true;
  return placed;
}

std::vector<int64_t> stage_counts(const MegatronLayout& layout, int64_t total) {
  const int64_t stages = layout.pipeline;
  if (layout.layers_per_stage.empty()) {
    expect(total % stages == 0,
           fmt::format("expected layers to be a multiple of --pipeline {}, got {}", stages, total),
           "give the layers of each stage (--layers-per-stage), or positions that do nothing "
           "(--noop-layers)");
    return std::vector<int64_t>(static_cast<size_t>(stages), total / stages);
  }
  const auto& counts = layout.layers_per_stage;
  expect(layout.noop_layers.empty() && layout.layers_per_virtual_stage == 0,
         "layers per stage exclude virtual stages and no-op layers");
  expect(static_cast<int64_t>(counts.size()) == stages,
         fmt::format("expected layers of {} stages, got {}", stages, counts.size()));
  expect(std::ranges::all_of(counts, [](int64_t count) { return count >= 0; }),
         "expected no negative number of layers");
  expect(std::accumulate(counts.begin(), counts.end(), int64_t{0}) == total,
         fmt::format("expected layers per stage to sum to {}, got {}", total,
                     fmt::join(counts, " + ")));
  return counts;
}

// Layers that take the keys and values of one before them stay with it.
void check_sharing(const model::ModelSpec& spec, const std::vector<std::vector<Chunk>>& placed) {
  for (const auto& chunks : placed) {
    for (const Chunk& chunk : chunks) {
      if (chunk.layers.empty()) continue;
      const int64_t first = chunk.layers.front().global;
      expect(first % spec.key_value_share_factor == 0,
             fmt::format("expected stages to begin with a layer that has keys and values of its "
                         "own (a multiple of {}), got {}",
                         spec.key_value_share_factor, first));
    }
  }
}

}  // namespace

int64_t own_layers(const model::ModelSpec& spec) { return spec.moe && spec.moe->shortcut ? 2 : 1; }

std::vector<std::vector<Chunk>> place_layers(const model::ModelSpec& spec,
                                             const MegatronLayout& layout) {
  const std::vector<int64_t> positions = enlarged(spec, layout);
  if (layout.dual_pipe_v) {
    auto placed = folded(positions, layout.pipeline);
    check_sharing(spec, placed);
    return placed;
  }
  const auto counts = stage_counts(layout, static_cast<int64_t>(positions.size()));
  std::vector<std::vector<Chunk>> placed(static_cast<size_t>(layout.pipeline));
  const int64_t k = layout.layers_per_virtual_stage;
  int64_t first = 0;
  for (int64_t stage = 0; stage < layout.pipeline; ++stage) {
    const int64_t count = counts[static_cast<size_t>(stage)];
    auto& chunks = placed[static_cast<size_t>(stage)];
    if (k == 0) {
      chunks.push_back(chunk_of(positions, first, count));
    } else {
      expect(k < count && count % k == 0,
             fmt::format("expected layers of a stage ({}) to be a multiple, not the same, of "
                         "layers per virtual "
                         "stage ({})",
                         count, k));
      for (int64_t c = 0; c < count / k; ++c) {
        chunks.push_back(chunk_of(positions, (c * layout.pipeline + stage) * k, k));
      }
    }
    first += count;
  }
  placed.front().front().first = true;
  placed.back().back().last = true;
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
  if (!spec.latent_attention) {
    divides(layout.tensor, "--tensor", spec.num_query_groups, "key/value heads");
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
