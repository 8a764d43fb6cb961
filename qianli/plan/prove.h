// Checks of any schedule, whoever made it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qianli/plan/schedule.h"

namespace qianli::plan {

struct Proof {
  // A sentence each, at most some dozen; empty: all of these hold.
  // - Every unit goes forward once and, unless the schedule is forward only, back once (or its two
  //   gradients do), after its input,
  //   recompute and gradient are there. Slices go forward in order and back in reverse.
  // - Every output and every gradient goes once to the neighbour in the flow, or to the chunk
  // beside.
  // - Between two stages, messages are received in the order they are sent.
  // - No stage waits forever, be messages blocking or batched.
  // - Activations of every unit are freed.
  // - A chunk's parameters are gathered once before its first forward, its gradients reduced once
  //   after its last.
  std::vector<std::string> problems;

  // By stage, at the worst moment:
  std::vector<int64_t> peak_activations;  // units whose activations are kept for backward
  std::vector<int64_t> peak_inputs;       // units of which a checkpointed forward kept the input
  std::vector<int64_t> peak_waiting;      // received inputs and gradients that are not yet used
};

Proof prove(const Schedule& schedule);

}  // namespace qianli::plan
