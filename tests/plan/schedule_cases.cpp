#include "tests/plan/schedule_cases.h"

#include <fmt/format.h>

namespace qianli::plan {
namespace {

void add(std::vector<ScheduleOptions>& grid, const ScheduleOptions& options) {
  if (schedule_problems(options).empty()) grid.push_back(options);
}

void add_variants(std::vector<ScheduleOptions>& grid, ScheduleOptions options) {
  using enum ScheduleKind;
  if (options.kind == kInterleaved || options.kind == kNanoPipe) {
    for (const int64_t chunks : {2, 3, 4}) {
      for (int64_t group = 0; group <= options.microbatches; ++group) {
        for (const bool align : {true, false}) {
          options.chunks = chunks;
          options.group_size = group;
          options.align_collectives = align;
          add(grid, options);
        }
      }
    }
  } else if (options.kind == kSeq1F1B) {
    for (const int64_t slices : {1, 2, 4}) {
      options.slices = slices;
      add(grid, options);
    }
  } else if (options.kind == kDualPipeV) {
    options.chunks = 2;
    for (const int variant : {0, 1, 2, 3}) {
      options.merge_pairs = variant % 2 == 1;
      options.detach_weight_grads = variant >= 2;
      add(grid, options);
    }
  } else {
    add(grid, options);
  }
}

}  // namespace

std::vector<ScheduleOptions> schedule_grid() {
  std::vector<ScheduleOptions> grid;
  for (const NamedSchedule& named : schedule_names()) {
    for (const Recompute recompute :
         {Recompute::kNone, Recompute::kFull, Recompute::kInAdvance, Recompute::kInBubble}) {
      for (const int64_t stages : {1, 2, 3, 4, 5, 8}) {
        for (const int64_t microbatches : {1, 2, 3, 4, 5, 8, 12, 16, 24}) {
          add_variants(grid, {.kind = named.kind,
                              .stages = stages,
                              .microbatches = microbatches,
                              .recompute = recompute});
        }
      }
    }
  }
  return grid;
}

std::string describe(const ScheduleOptions& options) {
  return fmt::format(
      "kind {} P {} M {} v {} G {} slices {} recompute {} merge {} detach {} align {}",
      static_cast<int>(options.kind), options.stages, options.microbatches, options.chunks,
      options.group_size, options.slices, static_cast<int>(options.recompute), options.merge_pairs,
      options.detach_weight_grads, options.align_collectives);
}

}  // namespace qianli::plan
