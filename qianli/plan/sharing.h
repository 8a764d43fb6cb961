// How ranks that hold the same parameters share out what they keep of them (ZeRO).
#pragma once

#include <cstdint>

#include "qianli/config/sections.h"

namespace qianli::plan {

// Of `replicas` ranks that hold the same parameters.
struct Sharing {
  int64_t ranks = 1;  // neighbours with a slice each; the others keep the same
  int64_t near = 1;   // neighbours among them from which a unit comes again; 1: from all
};

// Throws ConfigError for numbers that do not divide the replicas.
Sharing sharing_of(const config::ParallelConfig& config, int64_t replicas);
// Of experts, which other ranks hold, often fewer: what of these numbers divides the replicas.
Sharing sharing_of_experts(const config::ParallelConfig& config, int64_t replicas);

}  // namespace qianli::plan
