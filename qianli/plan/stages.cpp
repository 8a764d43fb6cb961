#include "qianli/plan/stages.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "qianli/base/error.h"

namespace qianli::plan {
namespace {

[[noreturn]] void refuse(const std::string& problem, const std::string& hint) {
  throw ConfigError("parallel", problem, hint);
}

ScheduleKind kind_of(const config::ParallelConfig& parallel, int64_t chunks) {
  if (parallel.schedule != "auto") return schedule_kind(parallel.schedule);
  return chunks > 1 ? ScheduleKind::kInterleaved : ScheduleKind::k1F1B;
}

Recompute recompute_of(const std::string& name) {
  static constexpr std::array kNames = {
      std::pair{"none", Recompute::kNone}, std::pair{"full", Recompute::kFull},
      std::pair{"in_advance", Recompute::kInAdvance}, std::pair{"in_bubble", Recompute::kInBubble}};
  for (const auto& [known, recompute] : kNames) {
    if (name == known) return recompute;
  }
  refuse(fmt::format("expected parallel.recompute none, full, in_advance or in_bubble, got '{}'",
                     name),
         "none keeps all activations");
}

// The counts next to the given one, one below and one above, with which the schedule can be made.
std::vector<int64_t> nearest_microbatches(ScheduleOptions options) {
  const int64_t given = options.microbatches, reach = 4 * options.stages;
  std::vector<int64_t> found;
  const auto works = [&](int64_t count) {
    options.microbatches = count;
    return count > 0 && schedule_problems(options).empty();
  };
  for (const int64_t direction : {-1, 1}) {
    for (int64_t far = 1; far <= reach; ++far) {
      if (!works(given + direction * far)) continue;
      found.push_back(given + direction * far);
      break;
    }
  }
  return found;
}

void check_schedule(const ScheduleOptions& options) {
  const auto problems = schedule_problems(options);
  if (problems.empty()) return;
  const auto counts = nearest_microbatches(options);
  refuse(fmt::format("{}", fmt::join(problems, "; ")),
         counts.empty()
             ? "use parallel.schedule=1f1b with parallel.pipeline_chunks=1, which any number of "
               "microbatches fits"
             : fmt::format("nearest that fits: {} microbatches a step of each replica "
                           "(train.global_batch_size / train.micro_batch_size / replicas), or "
                           "parallel.schedule=1f1b with parallel.pipeline_chunks=1",
                           fmt::join(counts, " or ")));
}

std::vector<int64_t> parse_numbers(std::string_view text) {
  std::vector<int64_t> numbers;
  const char* next = text.data();
  const char* const end = text.data() + text.size();
  while (next != end) {
    int64_t number = 0;
    const auto [behind, error] = std::from_chars(next, end, number);
    const bool separated = behind == end || (*behind == ',' && behind + 1 != end);
    if (error != std::errc() || !separated || numbers.size() == 65536) {
      refuse(fmt::format("expected parallel.noop_layers like '0,9', got '{}'", text),
             "give positions among all layers, counted from 0 with those that do nothing");
    }
    numbers.push_back(number);
    next = behind == end ? end : behind + 1;
  }
  return numbers;
}

bool is_layout(const std::string& text) { return text.find_first_of("EtmL") != std::string::npos; }

// A list ("1,3,3,1"), a table ("[[1,3],[2,2]]") or a layout ("Ett|tt|tt|tL").
LayerSplit read_layers(const std::string& text, int64_t stages) {
  if (is_layout(text)) return parse_layout(text, stages);
  LayerSplit split{.stages = stages};
  split.table = text.front() == '[' ? parse_layer_table(text) : parse_layer_list(text);
  for (const auto& row : split.table) {
    for (const int64_t count : row) split.layers += count;
  }
  split.chunks = split.table.empty() ? 1 : static_cast<int64_t>(split.table.front().size());
  return split;
}

int64_t chunks_of(const config::ParallelConfig& parallel) {
  if (parallel.layers.empty()) {
    return parallel.schedule == "dualpipev" ? 2 : parallel.pipeline_chunks;
  }
  const int64_t chunks = read_layers(parallel.layers, parallel.pipeline).chunks;
  if (parallel.pipeline_chunks != 1 && chunks != parallel.pipeline_chunks) {
    refuse(fmt::format("expected parallel.layers of {} chunks a stage, got {}",
                       parallel.pipeline_chunks, chunks),
           "leave parallel.pipeline_chunks at 1 to take those of parallel.layers");
  }
  return chunks;
}

// "8,8,7,7", or a table of chunks: as even as it gets, the first having more.
std::string uneven_text(int64_t layers, int64_t stages, int64_t chunks) {
  const int64_t cells = stages * chunks;
  const auto count = [&](int64_t stage, int64_t chunk) {
    return layers / cells + (chunk * stages + stage < layers % cells ? 1 : 0);
  };
  std::vector<std::string> rows;
  for (int64_t stage = 0; stage < stages; ++stage) {
    std::vector<int64_t> row;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) row.push_back(count(stage, chunk));
    const std::string text = fmt::format("{}", fmt::join(row, ","));
    rows.push_back(chunks > 1 ? "[" + text + "]" : text);
  }
  const std::string text = fmt::format("{}", fmt::join(rows, ","));
  return chunks > 1 ? "[" + text + "]" : text;
}

void check_even(const LayerSplit& split) {
  const bool even = split.table.empty() && !split.first_stage_layers && !split.last_stage_layers &&
                    !split.count_embedding && !split.count_loss;
  const int64_t chunks = split.chunks;
  const int64_t layers = split.layers + static_cast<int64_t>(split.noop_layers.size());
  if (!even || layers % (split.stages * chunks) == 0) return;
  std::vector<int64_t> stages;
  for (const int64_t direction : {-1, 1}) {
    int64_t near = split.stages + direction;
    while (near > 0 && near <= layers && layers % (near * chunks) != 0) near += direction;
    if (near > 0 && near <= layers) stages.push_back(near);
  }
  const int64_t missing =
      split.stages * chunks - layers % (split.stages * chunks);  // positions to fill up
  std::string hint =
      stages.empty() ? ""
                     : fmt::format("nearest: parallel.pipeline={}; or ", fmt::join(stages, " or "));
  if (!split.folded)
    hint +=
        fmt::format("parallel.layers=\"{}\"; or ", uneven_text(layers, split.stages, split.chunks));
  refuse(fmt::format("expected layers that {} stages of {} chunk(s) share evenly, got {}",
                     split.stages, chunks, layers),
         hint + fmt::format("{} parallel.noop_layers", missing));
}

LayerSplit split_of(const config::ParallelConfig& parallel, const model::ModelSpec& spec) {
  LayerSplit split{.layers = spec.num_layers,
                   .mtp_layers = spec.mtp.num_layers,
                   .stages = parallel.pipeline,
                   .chunks = chunks_of(parallel),
                   .folded = parallel.schedule == "dualpipev",
                   .noop_layers = parse_numbers(parallel.noop_layers),
                   .first_stage_layers = parallel.first_stage_layers,
                   .last_stage_layers = parallel.last_stage_layers,
                   .count_embedding = parallel.count_embedding,
                   .count_loss = parallel.count_loss};
  if (parallel.layers.empty()) return split;
  const LayerSplit given = read_layers(parallel.layers, parallel.pipeline);
  split.table = given.table;
  split.mtp_stage = given.mtp_stage;
  const bool with_ahead = is_layout(parallel.layers);
  if (given.layers != split.layers || (with_ahead && given.mtp_layers != split.mtp_layers)) {
    refuse(
        fmt::format("expected parallel.layers with the model's {} layers{}, got {}{}", split.layers,
                    split.mtp_layers > 0
                        ? fmt::format(" and {} of multi-token prediction", split.mtp_layers)
                        : "",
                    given.layers, with_ahead ? fmt::format(" and {}", given.mtp_layers) : ""),
        fmt::format("as even as it gets: \"{}\"",
                    uneven_text(split.layers, split.stages, split.chunks)));
  }
  return split;
}

}  // namespace

bool Stages::shares_embedding(const model::ModelSpec& spec) const {
  const Flow flow = schedule.kind == ScheduleKind::kDualPipeV
                        ? v_flow(schedule.stages)
                        : ring_flow(schedule.stages, static_cast<int64_t>(chunks.front().size()));
  return flow.front().stage != flow.back().stage &&
         (spec.tie_word_embeddings || spec.mtp.num_layers > 0);
}

ScheduleOptions configured_schedule(const config::ParallelConfig& parallel, int64_t microbatches) {
  const int64_t chunks = chunks_of(parallel);
  const ScheduleOptions schedule{.kind = kind_of(parallel, chunks),
                                 .stages = parallel.pipeline,
                                 .microbatches = microbatches,
                                 .chunks = chunks,
                                 .group_size = parallel.schedule_group,
                                 .slices = parallel.schedule_slices,
                                 .recompute = recompute_of(parallel.recompute),
                                 .detach_weight_grads = parallel.detach_weight_grads};
  check_schedule(schedule);
  return schedule;
}

SliceOptions configured_slices(const config::ParallelConfig& parallel,
                               const model::ModelSpec& spec) {
  SliceOptions options{.slices = parallel.schedule_slices};
  if (parallel.schedule_slicing == "even") return options;
  options.balance = SliceBalance::kCompute;
  // Work is token n + key n^2 / 2 for n tokens; two lengths tell both.
  constexpr int64_t kLength = 4096;
  const auto n = static_cast<double>(kLength);
  const double once = model::training_flops(spec, 1, kLength),
               twice = model::training_flops(spec, 1, 2 * kLength);
  options.key = (twice - 2 * once) / (n * n);
  options.token = (once - options.key * n * n / 2) / n;
  return options;
}

Stages plan_stages(const config::ParallelConfig& parallel, const model::ModelSpec& spec,
                   int64_t microbatches) {
  Stages stages{.schedule = configured_schedule(parallel, microbatches), .chunks = {}};
  const LayerSplit split = split_of(parallel, spec);
  check_even(split);
  stages.chunks = place_layers(split);
  for (const auto& stage : stages.chunks) {
    for (const ChunkLayers& chunk : stage) {
      if (chunk.mtp_layers == 0 || chunk.loss) continue;
      refuse("expected multi-token prediction in the chunk of the loss, got another one",
             "write its m right before the L of parallel.layers");
    }
  }
  return stages;
}

}  // namespace qianli::plan
