// The ranks of a training run: who they are, and which of them work together at what.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <map>
#include <string>

#include "qianli/config/config.h"
#include "qianli/data/context_deal.h"
#include "qianli/dist/world.h"
#include "qianli/launch/rank_environment.h"
#include "qianli/nn/parallel.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/optim/flat_optimizer.h"
#include "qianli/plan/mesh.h"
#include "qianli/plan/model_part.h"

namespace qianli::train {

plan::Share share_of(const dist::Group& group);

struct Ranks {
  dist::World world;
  dist::Group all;
  dist::Group replicas;         // hold the same parameters and take other tokens
  dist::Group expert_replicas;  // hold the same experts
  // How these share out what they keep.
  optim::Replicas sharing, expert_sharing;
  dist::Group savers;     // all, for saving in the background
  dist::Group stages;     // of this rank's pipeline, for what passes between them
  dist::Group pipeline;   // the same ranks, for all else
  dist::Group embedding;  // the first and the last of them; alone: this is neither
  nn::Parallel parallel;  // take the same samples
  plan::ModelPart part;   // of the model, that this rank holds
  plan::Share samples;    // of a step, that it takes

  bool first() const { return world.rank() == 0; }
  // Whether the experts have other replicas than the rest of the model.
  bool experts_apart() const { return expert_replicas.ranks() != replicas.ranks(); }
  // Which slices of the flat buffers this rank updates and keeps.
  nn::FlatOwners owners(const config::ParallelConfig& config) const;
};

// The groups of a world laid out as a mesh; every rank calls it.
Ranks join_groups(const dist::World& world, const plan::Mesh& mesh,
                  const config::ParallelConfig& config);

// Who has a part in the gradients of this rank's parameters; makes the groups of those that hold
// the same keys and values. Every rank calls it.
optim::GradientGroups gradient_groups(const Ranks& ranks, const nn::ParameterSet& parameters,
                                      const config::ParallelConfig& config);

// Meets the other ranks of the job that the environment tells of, and makes sure that they run the
// same program with the same configuration; each has a `device` of its own, unless it is the CPU.
// `devices` is asked where there are several. Throws ConfigError or LostRankError.
Ranks meet(const config::Config& config, const launch::RankEnvironment& environment,
           c10::Device device, const std::function<dist::Devices()>& devices);

}  // namespace qianli::train
