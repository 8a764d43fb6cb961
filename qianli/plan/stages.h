// How a model is run by the stages of a pipeline: the schedule, and the layers of each chunk, from
// a configuration.
#pragma once

#include <vector>

#include "qianli/config/sections.h"
#include "qianli/model/spec.h"
#include "qianli/plan/layers.h"
#include "qianli/plan/schedule.h"
#include "qianli/plan/slices.h"

namespace qianli::plan {

struct Stages {
  ScheduleOptions schedule;
  std::vector<std::vector<ChunkLayers>> chunks;  // [stage][chunk]

  // Whether first and last stage both hold the embedding: for tied weights, or multi-token
  // prediction.
  bool shares_embedding(const model::ModelSpec& spec) const;
};

// Both throw ConfigError for what does not fit together, naming what would. `microbatches` are
// those of a step of each replica.
ScheduleOptions configured_schedule(const config::ParallelConfig& parallel, int64_t microbatches);
// How parallel.schedule_slices and schedule_slicing cut the model's sequences.
SliceOptions configured_slices(const config::ParallelConfig& parallel,
                               const model::ModelSpec& spec);
Stages plan_stages(const config::ParallelConfig& parallel, const model::ModelSpec& spec,
                   int64_t microbatches);

}  // namespace qianli::plan
