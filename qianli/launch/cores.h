// The cores of this node, shared out among the processes of a job.
#pragma once

#include <sched.h>

#include <vector>

#include "qianli/launch/rank_environment.h"

namespace qianli::launch {

// The cores this process may run on, cut into as many neighbouring parts as even as possible; where
// there are fewer cores than processes, several share one.
std::vector<cpu_set_t> divide_cores(int processes);

// How many accelerators the processes of this node can use: NVIDIA's or Ascend's devices, those
// that CUDA_VISIBLE_DEVICES or ASCEND_RT_VISIBLE_DEVICES name where they are set.
int accelerators(const Environment& environment);

}  // namespace qianli::launch
