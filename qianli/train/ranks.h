// The ranks of a training run: who they are, and which of them work together at what.
#pragma once

#include <functional>
#include <string>

#include "qianli/config/config.h"
#include "qianli/data/context_deal.h"
#include "qianli/dist/world.h"
#include "qianli/launch/rank_environment.h"
#include "qianli/nn/parallel.h"
#include "qianli/plan/mesh.h"

namespace qianli::train {

struct Ranks {
  dist::World world;
  dist::Group all;
  dist::Group replicas;    // hold the same parameters and take other tokens
  nn::Parallel parallel;   // take the same samples
  dist::Group savers;      // all, for saving in the background
  int64_t local_size = 1;  // ranks on this machine

  // Of the replicas that take other samples.
  int64_t data_rank() const { return replicas.rank() / parallel.context.size(); }
  int64_t data_size() const { return replicas.size() / parallel.context.size(); }
  bool first() const { return world.rank() == 0; }
};

// Meets the other ranks of the job that the environment tells of, and makes sure that they run the
// same program with the same configuration. Throws ConfigError or LostRankError.
Ranks meet(const config::Config& config, const launch::RankEnvironment& environment);

// The groups in which this rank shares the work on its samples.
nn::Parallel parallel_groups(const dist::World& world, const plan::Mesh& mesh,
                             const data::ContextOptions& context);

}  // namespace qianli::train
