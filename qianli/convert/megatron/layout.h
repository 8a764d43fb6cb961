// How a Megatron checkpoint is cut over ranks (Megatron-LM and MindSpeed-LLM, format `torch`).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qianli/model/spec.h"
#include "qianli/plan/layers.h"

namespace qianli::convert {

enum class MegatronNames {
  kCore,       // Megatron-core with local layers
  kMindSpeed,  // MindSpeed-LLM's converter: its own names for latent attention, sandwich norms, MTP
  kLegacy,     // language_model.encoder.layers.…
};

enum class ExpertStorage {
  kLocalExperts,  // experts.local_experts.0.linear_fc1.weight
  kGrouped,       // experts.weight1, experts.weight2 (GroupedMLP)
  kPerWeight,     // experts.linear_fc1.weight0 (Transformer Engine)
};

// Rows of the fused queries, keys and values on a rank. The older two are of models that have as
// many keys as queries, under legacy names (checkpoint_version).
enum class FusedRows {
  kByGroup,  // of each group its queries, its key, its value (2.0 and later)
  kApart,    // all queries, all keys, all values (0)
  kWoven,    // a query's, a key's and a value's row in turn (1.0)
};

struct MegatronLayout {
  int64_t tensor = 1;
  int64_t pipeline = 1;
  int64_t expert = 1;
  int64_t expert_tensor = 0;              // 0: as tensor
  int64_t layers_per_virtual_stage = 0;   // 0: no virtual stages
  std::vector<int64_t> layers_per_stage;  // uneven stages; empty: even
  std::vector<int64_t> noop_layers;       // positions that do nothing, in the enlarged numbering
  bool dual_pipe_v = false;               // two chunks a stage, the second from the back
  bool tensor_extends_expert = false;     // experts over expert * tensor ranks, not cut inside
  ExpertStorage experts = ExpertStorage::kLocalExperts;
  MegatronNames names = MegatronNames::kCore;
  FusedRows fused_rows = FusedRows::kByGroup;
  bool fused_norms = false;               // Transformer Engine: linear_qkv.layer_norm_weight
  bool split_latent_projections = false;  // MindSpeed --mla-mm-split
  int64_t vocab_divisor = 1;              // rows are padded to a multiple of this times tensor
  int64_t padded_vocab_size = 0;          // or to this; 0: by the divisor

  int64_t experts_cut() const {
    return tensor_extends_expert ? 1 : expert_tensor > 0 ? expert_tensor : tensor;
  }
};

// Layers of ours that are one of Megatron's: 2 in a model with shortcut experts (LongCat).
int64_t own_layers(const model::ModelSpec& spec);

// [stage][chunk]. Throws ConfigError where the layout does not fit the model, saying why.
std::vector<std::vector<plan::ChunkLayers>> place_layers(const model::ModelSpec& spec,
                                                         const MegatronLayout& layout);

int64_t padded_vocab_size(const model::ModelSpec& spec, const MegatronLayout& layout);

// Throws ConfigError where heads, groups, widths or experts cannot be cut as the layout says.
void check_layout(const model::ModelSpec& spec, const MegatronLayout& layout);

// A rank's folder: mp_rank_00, mp_rank_00_000, mp_rank_00_000_000, … The ranks of a layout in the
// order of their files: pipeline stage slowest, then expert rank, then tensor rank.
struct MegatronRank {
  int64_t tensor = 0, pipeline = 0, expert = 0;
};
std::vector<MegatronRank> megatron_ranks(const MegatronLayout& layout);
std::string rank_folder(const MegatronLayout& layout, const MegatronRank& rank);

}  // namespace qianli::convert
