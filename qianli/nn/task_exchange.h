// The messages of one pass over the rounds of a task schedule (plan/task_schedule.h): keys or
// queries come while the round before is computed, results go home while the next one is.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "qianli/data/context_deal.h"
#include "qianli/dist/group.h"
#include "qianli/plan/task_schedule.h"

namespace qianli::nn {

// One row per token of a place.
struct TaskMessages {
  // What this place sends of its own, [rows, columns]; undefined: nothing travels.
  at::Tensor keys, queries;
  // Columns of the results that return for them; 0: none do.
  int64_t key_results = 0, query_results = 0;
  at::TensorOptions results = {};

  const at::Tensor& own(plan::PlaceRound::Cargo cargo) const {
    return cargo == plan::PlaceRound::Cargo::kKeys ? keys : queries;
  }
  int64_t result_columns(plan::PlaceRound::Cargo cargo) const {
    return cargo == plan::PlaceRound::Cargo::kKeys ? key_results : query_results;
  }
};

// Computes the task of a round with what came for it (undefined where nothing travels); the result
// goes to the place that this came from, if results return for it.
using ComputeTask = std::function<at::Tensor(size_t round, const at::Tensor& cargo)>;
// Takes a result that returned for own keys or queries.
using TakeResult = std::function<void(plan::PlaceRound::Cargo cargo, const at::Tensor& result)>;

// Ends when all of this place's messages have been sent and have come.
void run_tasks(const std::vector<plan::PlaceRound>& rounds, const data::ContextDeal& deal,
               const dist::Group& ring, const TaskMessages& messages, const ComputeTask& compute,
               const TakeResult& take);

}  // namespace qianli::nn
