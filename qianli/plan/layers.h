// Which layers of the model each chunk of each stage holds: every way of splitting that
// Megatron-core and MindSpeed have, reduced to one table of counts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/plan/schedule.h"

namespace qianli::plan {

// Layers of each chunk, [stage][chunk]; 0 is a chunk that passes its input on.
using LayerTable = std::vector<std::vector<int64_t>>;

struct LayerSplit {
  int64_t layers = 0;      // of the model; layers that do nothing are not counted
  int64_t mtp_layers = 0;  // multi-token prediction, behind the last layer
  int64_t stages = 1;
  int64_t chunks = 1;   // of a stage
  bool folded = false;  // DualPipe-V: two chunks a stage, the second from the back

  // Positions that do nothing, among all layers with these counted (--noop-layers).
  std::vector<int64_t> noop_layers;

  // The layers of the first and of the last stage; the others share the rest evenly.
  std::optional<int64_t> first_stage_layers, last_stage_layers;
  // Embedding or loss count as a layer of their stage in even sharing.
  bool count_embedding = false, count_loss = false;

  LayerTable table;        // excludes all of the above; empty: even
  int64_t mtp_stage = -1;  // whose last chunk holds multi-token prediction; -1: where the loss is
};

struct ChunkLayers {
  struct Layer {
    int64_t local;   // index in the chunk, layers that do nothing counted
    int64_t global;  // of the model, those not counted
    bool operator==(const Layer&) const = default;
  };
  std::vector<Layer> layers;
  int64_t mtp_layers = 0;
  bool embedding = false;
  bool loss = false;  // final norm, output layer and loss
};

// [stage][chunk]. Throws ConfigError that names everything that does not fit.
std::vector<std::vector<ChunkLayers>> place_layers(const LayerSplit& split);

// The texts of options. All throw ConfigError for texts of another form and for more than 65536
// entries.

// "1,3,3,1": a count for each stage (--num-layer-list).
LayerTable parse_layer_list(std::string_view text);

// "[[11,11],[13,19]]": a row for each stage, a count for each of its chunks; "[1,2]*3" is a row
// three times (--pipeline-num-transformer-layers).
LayerTable parse_layer_table(std::string_view text);

// "Ett|tt|ttt|tmL": the content of every chunk, chunk 0 of all stages first
// (--pipeline-model-parallel-layout). E embedding, t layer, m layer of multi-token prediction, L
// loss; "t*3" and "(tt|)*4" repeat; commas and blanks mean nothing. Gives a split with layers,
// mtp_layers, mtp_stage, stages, chunks and table.
LayerSplit parse_layout(std::string_view text, int64_t stages);

}  // namespace qianli::plan
