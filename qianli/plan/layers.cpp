#include "qianli/plan/layers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "qianli/base/error.h"

namespace qianli::plan {
namespace {

constexpr int64_t kMaxLayers = 65536;

[[noreturn]] void refuse(const std::string& problem, const std::string& hint = {}) {
  throw ConfigError("parallel", problem, hint);
}

void expect(bool holds, const std::string& problem, const std::string& hint = {}) {
  if (!holds) refuse(problem, hint);
}

void check_numbers(const LayerSplit& split) {
  const auto within = [](const char* name, int64_t value, int64_t least) {
    expect(value >= least && value <= kMaxLayers,
           fmt::format("expected {} between {} and {}, got {}", name, least, kMaxLayers, value));
  };
  within("layers", split.layers, 0);
  within("layers of multi-token prediction", split.mtp_layers, 0);
  within("stages", split.stages, 1);
  within("chunks of a stage", split.chunks, 1);
  within("stages x chunks", split.stages * split.chunks, 1);
  within("layers of the first stage", split.first_stage_layers.value_or(0), 0);
  within("layers of the last stage", split.last_stage_layers.value_or(0), 0);
  within("layers that do nothing", static_cast<int64_t>(split.noop_layers.size()), 0);
  within("a stage for multi-token prediction", split.mtp_stage, -1);
  expect(split.mtp_stage < split.stages,
         fmt::format("expected multi-token prediction on one of {} stages, got {}", split.stages,
                     split.mtp_stage));
}

bool has_ends(const LayerSplit& split) {
  return split.first_stage_layers || split.last_stage_layers || split.count_embedding ||
         split.count_loss;
}

// The model's layers at their positions among those that do nothing, which are -1.
std::vector<int64_t> enlarged(const LayerSplit& split) {
  const int64_t total = split.layers + static_cast<int64_t>(split.noop_layers.size());
  std::vector<int64_t> positions(static_cast<size_t>(total), 0);
  for (const int64_t position : split.noop_layers) {
    expect(position >= 0 && position < total,
           fmt::format("expected layers that do nothing between 0 and {}, got {}", total - 1,
                       position));
    expect(positions[static_cast<size_t>(position)] == 0,
           fmt::format("layer {} that does nothing is given twice", position));
    positions[static_cast<size_t>(position)] = -1;
  }
  int64_t next = 0;
  for (int64_t& position : positions) {
    if (position == 0) position = next++;
  }
  return positions;
}

void check_table(const LayerSplit& split, int64_t total) {
  expect(!has_ends(split) && !split.folded && split.noop_layers.empty(),
         "expected layers of every chunk alone, got a first or last stage's, a folded pipeline or "
         "layers that do nothing as well");
  expect(static_cast<int64_t>(split.table.size()) == split.stages,
         fmt::format("expected layers of {} stages, got {}", split.stages, split.table.size()));
  int64_t sum = 0;
  for (const auto& row : split.table) {
    expect(static_cast<int64_t>(row.size()) == split.chunks,
           fmt::format("expected layers of {} chunks for each stage, got {}", split.chunks,
                       row.size()));
    for (const int64_t count : row) {
      expect(count >= 0 && count <= kMaxLayers,
             fmt::format("expected layers of a chunk between 0 and {}, got {}", kMaxLayers, count));
      sum += count;
    }
  }
  expect(sum == total,
         fmt::format("expected layers of all chunks to sum to {}, got {}", total, sum));
}

// Layers of a stage cut into its chunks.
int64_t per_chunk(const LayerSplit& split, int64_t stage_layers) {
  expect(stage_layers % split.chunks == 0,
         fmt::format("expected layers of a stage to be a multiple of its {} chunks, got {}",
                     split.chunks, stage_layers));
  return stage_layers / split.chunks;
}

LayerTable even_table(const LayerSplit& split, int64_t total) {
  expect(!split.first_stage_layers || !split.count_embedding,
         "expected the first stage's layers or the embedding counted as one, got both");
  expect(!split.last_stage_layers || !split.count_loss,
         "expected the last stage's layers or the loss counted as one, got both");
  expect(split.stages > 1 || (!split.first_stage_layers && !split.last_stage_layers),
         "expected several stages where the first or last has layers of its own, got 1");
  const int64_t shared = total + (split.count_embedding ? 1 : 0) + (split.count_loss ? 1 : 0) -
                         split.first_stage_layers.value_or(0) - split.last_stage_layers.value_or(0);
  const int64_t sharing =
      split.stages - (split.first_stage_layers ? 1 : 0) - (split.last_stage_layers ? 1 : 0);
  expect(shared >= 0 && (sharing == 0 ? shared == 0 : shared % sharing == 0),
         fmt::format("expected layers to be a multiple of {} stages, got {}", sharing, shared),
         "give the layers of the first or last stage or of each one, or layers that do nothing");
  LayerTable table(static_cast<size_t>(split.stages));
  for (auto& row : table)
    row.assign(static_cast<size_t>(split.chunks),
               per_chunk(split, sharing == 0 ? 0 : shared / sharing));
  if (split.first_stage_layers)
    std::ranges::fill(table.front(), per_chunk(split, *split.first_stage_layers));
  if (split.last_stage_layers)
    std::ranges::fill(table.back(), per_chunk(split, *split.last_stage_layers));
  if (split.count_embedding) --table.front().front();
  if (split.count_loss) --table.back().back();
  expect(table.front().front() >= 0 && table.back().back() >= 0,
         "expected at least one layer for each chunk where embedding or loss count as one");
  return table;
}

LayerTable folded_table(const LayerSplit& split, int64_t total) {
  expect(!has_ends(split) && split.chunks <= 2,
         "expected a folded pipeline (dualpipev) with even stages of two chunks");
  expect(total % (2 * split.stages) == 0,
         fmt::format("expected layers to be a multiple of {} for dualpipev, got {}",
                     2 * split.stages, total));
  return LayerTable(static_cast<size_t>(split.stages),
                    std::vector<int64_t>(2, total / (2 * split.stages)));
}

ChunkLayers chunk_of(const std::vector<int64_t>& positions, int64_t first, int64_t count) {
  ChunkLayers chunk;
  for (int64_t local = 0; local < count; ++local) {
    const int64_t global = positions[static_cast<size_t>(first + local)];
    if (global >= 0) chunk.layers.push_back({local, global});
  }
  return chunk;
}

}  // namespace

std::vector<std::vector<ChunkLayers>> place_layers(const LayerSplit& split) {
  check_numbers(split);
  const std::vector<int64_t> positions = enlarged(split);
  const auto total = static_cast<int64_t>(positions.size());
  if (!split.table.empty()) check_table(split, total);
  const LayerTable table = !split.table.empty() ? split.table
                           : split.folded       ? folded_table(split, total)
                                                : even_table(split, total);
  const Flow flow = split.folded ? v_flow(split.stages) : ring_flow(split.stages, split.chunks);
  std::vector<std::vector<ChunkLayers>> placed(static_cast<size_t>(split.stages));
  for (size_t stage = 0; stage < placed.size(); ++stage) placed[stage].resize(table[stage].size());
  int64_t first = 0;
  for (const Place& place : flow) {
    const auto stage = static_cast<size_t>(place.stage), chunk = static_cast<size_t>(place.chunk);
    placed[stage][chunk] = chunk_of(positions, first, table[stage][chunk]);
    first += table[stage][chunk];
  }
  const auto at = [&](const Place& place) -> ChunkLayers& {
    return placed[static_cast<size_t>(place.stage)][static_cast<size_t>(place.chunk)];
  };
  at(flow.front()).embedding = true;
  at(flow.back()).loss = true;
  ChunkLayers& mtp =
      split.mtp_stage < 0 ? at(flow.back()) : placed[static_cast<size_t>(split.mtp_stage)].back();
  mtp.mtp_layers = split.mtp_layers;
  return placed;
}

}  // namespace qianli::plan
