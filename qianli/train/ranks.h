// The ranks of a training run: who they are, and which of them work together at what.
#pragma once

#include <functional>
#include <string>

#include "qianli/config/config.h"
#include "qianli/dist/world.h"
#include "qianli/launch/rank_environment.h"

namespace qianli::train {

struct Ranks {
  dist::World world;
  dist::Group all;
  dist::Group replicas;    // hold the same parameters and take other samples
  dist::Group savers;      // all, for saving in the background
  int64_t local_size = 1;  // ranks on this machine

  bool first() const { return world.rank() == 0; }
};

// Meets the other ranks of the job that the environment tells of, and makes sure that they run the
// same program with the same configuration. Throws ConfigError or LostRankError.
Ranks meet(const config::Config& config, const launch::RankEnvironment& environment);

}  // namespace qianli::train
