#include "qianli/train/ranks.h"

#include <fmt/format.h>

#include <set>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/version.h"
#include "qianli/dist/agreement.h"
#include "qianli/plan/ring_order.h"
#include "qianli/plan/sharing.h"
#include "qianli/train/context.h"
#include "qianli/train/devices.h"

namespace qianli::train {
namespace {

using plan::Axis;

optim::Replicas share_out(const dist::World& world, const dist::Group& replicas,
                          const plan::Sharing& sharing, const std::string& name) {
  // `size` of the replicas from `first` on, `step` apart.
  const auto part = [&](int64_t first, int64_t size, int64_t step, const char* what) {
    if (size == replicas.size()) return replicas;
    std::vector<int64_t> members;
    for (int64_t i = 0; i < size; ++i)
      members.push_back(replicas.ranks()[static_cast<size_t>(first + i * step)]);
    return world.group(members, name + what);
  };
  const int64_t rank = replicas.rank(), count = sharing.ranks, near = sharing.near;
  return {.within = part(rank / count * count, count, 1, " slices"),
          .across = part(rank % count, replicas.size() / count, count, " copies"),
          .near = near == 1 ? dist::Group() : part(rank / near * near, near, 1, " neighbours")};
}

// The ranks that share a sequence in attention: those of the context group, each with those of its
// tensor group that hold other tokens within a block.
plan::Ranks attending_together(const plan::RankGrid& dense, int64_t rank,
                               const config::ParallelConfig& config) {
  const plan::Ranks context = dense.group(rank, {Axis::kContext});
  if (config.tensor_y == 1) return context;
  plan::Ranks together;
  for (const int64_t place : context) {
    const plan::Ranks tensor = dense.group(place, {Axis::kTensor});
    const plan::Ranks y = plan::tensor_parts(tensor, place, config.tensor_x).y;
    together.insert(together.end(), y.begin(), y.end());
  }
  return together;
}

// From each to each: which of them a mask wants is known when it comes.
std::vector<dist::Route> all_routes(int64_t size) {
  std::vector<dist::Route> routes;
  for (int64_t from = 0; from < size; ++from) {
    for (int64_t to = 0; to < size; ++to)
      if (from != to) routes.push_back({from, to});
  }
  return routes;
}

// For the messages that keys and their gradients are, and queries and their results.
void open_ring(const dist::Group& ring, const data::ContextOptions& options) {
  if (ring.alone() || options.algorithm == data::ContextAlgorithm::kKvAllGather) return;
  if (options.algorithm == data::ContextAlgorithm::kAdaptive)
    return ring.open_routes(all_routes(ring.size()));
  std::vector<dist::Route> routes;
  for (const auto& [from, to] :
       plan::RingOrder{ring.size(), std::min(options.window, ring.size())}.ways())
    routes.push_back({from, to});
  ring.open_routes(routes);
}

}  // namespace

plan::Share share_of(const dist::Group& group) { return {group.rank(), group.size()}; }

nn::FlatOwners Ranks::owners(const config::ParallelConfig& config) const {
  const auto owner = [&](const optim::Replicas& replicas) {
    return nn::FlatOwner{.ranks = replicas.within.size(),
                         .rank = replicas.within.rank(),
                         .keeps_slices = config.zero == 3 && !replicas.within.alone()};
  };
  nn::FlatOwners owners{.dense = owner(sharing),
                        .experts = {},
                        .bucket_elements = config.bucket_elements,
                        .bucket_is_unit = config.zero >= 2};
  if (experts_apart()) owners.experts = owner(expert_sharing);
  return owners;
}

Ranks join_groups(const dist::World& world, const plan::Mesh& mesh,
                  const config::ParallelConfig& config) {
  const auto group = [&](const plan::RankGrid& grid, const plan::Axes& axes, const char* name) {
    return world.group(grid.group(world.rank(), axes), name);
  };
  const plan::RankGrid& dense = mesh.dense();
  Ranks ranks{
      .world = world,
      .all = world.all("all", dist::Patience::kDeadline, dist::Carries::kHostTensors),
      .replicas = group(dense, {Axis::kContext, Axis::kData}, "data"),
      .savers = world.all("savers", dist::Patience::kWhileHeard, dist::Carries::kHostTensors),
      .stages = group(dense, {Axis::kPipeline}, "stages"),
      .pipeline = world.group(dense.group(world.rank(), {Axis::kPipeline}), "pipeline",
                              dist::Patience::kDeadline, dist::Carries::kHostTensors),
      .parallel = {.tensor = group(dense, {Axis::kTensor}, "tensor"),
                   .context = group(dense, {Axis::kContext}, "context"),
                   .experts = group(mesh.expert(), {Axis::kExpert}, "experts"),
                   .expert_tensor = group(mesh.expert(), {Axis::kTensor}, "expert tensor")},
      .samples = {dense.coordinate(world.rank(), Axis::kData), dense.size(Axis::kData)}};
  const plan::Ranks with_experts = mesh.expert().group(world.rank(), {Axis::kData});
  ranks.expert_replicas = with_experts == ranks.replicas.ranks()
                              ? ranks.replicas
                              : world.group(with_experts, "expert data");
  const plan::Sharing sharing = plan::sharing_of(config, ranks.replicas.size());
  ranks.sharing = share_out(world, ranks.replicas, sharing, "data");
  if (ranks.experts_apart()) {
    ranks.expert_sharing =
        share_out(world, ranks.expert_replicas,
                  plan::sharing_of_experts(config, ranks.expert_replicas.size()), "expert data");
  }
  const plan::Ranks ends = mesh.embedding_group(world.rank());
  if (ends.size() > 1) ranks.embedding = world.group(ends, "embedding");
  if (config.tensor_y > 1) {
    const auto parts =
        plan::tensor_parts(ranks.parallel.tensor.ranks(), world.rank(), config.tensor_x);
    ranks.parallel.tensor_x = world.group(parts.x, "tensor x");
    ranks.parallel.tensor_y = world.group(parts.y, "tensor y");
  }
  if (const plan::Ranks together = attending_together(dense, world.rank(), config);
      together.size() > 1) {
    const auto parts = plan::context_parts(together, world.rank(), context_options(config).heads());
    ranks.parallel.context_heads = world.group(parts.heads, "context heads");
    ranks.parallel.context_ring = world.group(parts.ring, "context ring");
    open_ring(ranks.parallel.context_ring, context_options(config));
  }
  ranks.parallel.sequence =
      config.sequence && config.tensor_y == 1 && !ranks.parallel.tensor.alone();
  ranks.parallel.slices = config.tensor_slices;
  if (config.expert_dispatcher == "all_gather") {
    ranks.parallel.dispatcher = nn::Parallel::Dispatcher::kAllGather;
  }
  ranks.part = {.tensor = share_of(ranks.parallel.tensor),
                .experts = share_of(ranks.parallel.experts),
                .expert_tensor = share_of(ranks.parallel.expert_tensor),
                .sequence = ranks.parallel.sequence,
                .columns = share_of(ranks.parallel.tensor_y)};
  return ranks;
}

optim::GradientGroups gradient_groups(const Ranks& ranks, const nn::ParameterSet& parameters,
                                      const config::ParallelConfig& config) {
  optim::GradientGroups groups{
      .replicas = ranks.sharing,
      .expert_replicas = {},
      .parts = {.tensor = ranks.parallel.tensor,
                .expert_tensor = ranks.parallel.expert_tensor,
                .columns = ranks.parallel.tensor_y},
      .all = ranks.all,
      .gradients = {.slices = config.zero >= 2, .overlap = config.overlap_grad_reduce},
      .gathering = {.overlap = config.overlap_param_gather, .ahead = config.gather_ahead}};
  if (config.reduce_dtype == "bf16") groups.gradients.travels_as = at::kBFloat16;
  if (ranks.experts_apart()) groups.expert_replicas = ranks.expert_sharing;
  std::set<int64_t> sharers;
  for (size_t i = 0; i < parameters.size(); ++i) sharers.insert(parameters.part(i).sharers);
  for (const int64_t count : sharers) {
    if (count == 1) continue;
    const auto& all = ranks.parallel.tensor.ranks();
    const auto first = all.begin() + ranks.parallel.tensor.rank() / count * count;
    groups.parts.key_value[count] =
        ranks.world.group({first, first + count}, fmt::format("keys of {}", count));
  }
  return groups;
}

Ranks meet(const config::Config& config, const launch::RankEnvironment& environment,
           c10::Device device, const std::function<dist::Devices()>& devices) {
  if (!environment.notice.empty()) log::warn("launch", "{}", environment.notice);
  const plan::Mesh mesh({.world = environment.world_size,
                         .tensor = config.parallel.tensor,
                         .context = config.parallel.context,
                         .pipeline = config.parallel.pipeline,
                         .expert = config.parallel.expert,
                         .expert_tensor = config.parallel.expert_tensor});
  if (mesh.world() == 1) return {};
  const dist::World world = dist::World::connect(
      {.rank = environment.rank,
       .size = environment.world_size,
       .host = environment.master_address,
       .port = static_cast<uint16_t>(environment.master_port),
       .serve = !environment.launcher_serves_store,
       .attempt = environment.restart_count,
       .deadline =
           std::chrono::milliseconds(static_cast<int64_t>(config.parallel.timeout_seconds * 1000))},
      devices());
  expect_own_devices(world, device);
  Ranks ranks = join_groups(world, mesh, config.parallel);
  dist::expect_same(ranks.all, "the program's version", version());
  dist::expect_same(ranks.all, "the configuration", config::to_yaml(config));
  if (ranks.first()) {
    log::info("ranks", "{} ranks ({}): {} on samples of their own{}", world.size(),
              environment.source, ranks.samples.count,
              ranks.parallel.context.alone()
                  ? std::string()
                  : fmt::format(", sequences shared by {} ({})", ranks.parallel.context.size(),
                                config.parallel.context_algorithm));
  }
  return ranks;
}

}  // namespace qianli::train
