// Which stages of a pipeline have to do with each other.
#pragma once

#include <cstdint>
#include <set>
#include <utility>

#include "qianli/plan/schedule.h"

namespace qianli::plan {

// Pairs of stages between which activations go, each once; gradients go the other way.
std::set<std::pair<int32_t, int32_t>> neighbours(const Flow& flow);

}  // namespace qianli::plan
