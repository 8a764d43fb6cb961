#include "qianli/train/ranks.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/version.h"
#include "qianli/dist/agreement.h"
#include "qianli/train/context.h"

namespace qianli::train {

nn::Parallel parallel_groups(const dist::World& world, const plan::Mesh& mesh,
                             const data::ContextOptions& context) {
  nn::Parallel parallel;
  const plan::Ranks sharing = mesh.dense().group(world.rank(), {plan::Axis::kContext});
  if (sharing.size() == 1) return parallel;
  const auto parts = plan::context_parts(sharing, world.rank(), context.heads());
  parallel.context = world.group(sharing, "context");
  parallel.context_heads = world.group(parts.heads, "context heads");
  parallel.context_ring = world.group(parts.ring, "context ring");
  return parallel;
}

Ranks meet(const config::Config& config, const launch::RankEnvironment& environment) {
  if (!environment.notice.empty()) log::warn("launch", "{}", environment.notice);
  const plan::Mesh mesh({.world = environment.world_size,
                         .tensor = config.parallel.tensor,
                         .context = config.parallel.context,
                         .pipeline = config.parallel.pipeline,
                         .expert = config.parallel.expert});
  if (mesh.world() == 1) return {};
  const dist::World world =
      dist::World::connect({.rank = environment.rank,
                            .size = environment.world_size,
                            .host = environment.master_address,
                            .port = static_cast<uint16_t>(environment.master_port),
                            .serve = !environment.launcher_serves_store,
                            .attempt = environment.restart_count,
                            .deadline = std::chrono::milliseconds(
                                static_cast<int64_t>(config.parallel.timeout_seconds * 1000))});
  Ranks ranks{
      .world = world,
      .all = world.all("all"),
      .replicas = world.group(
          mesh.dense().group(world.rank(), {plan::Axis::kContext, plan::Axis::kData}), "data"),
      .parallel = parallel_groups(world, mesh, context_options(config.parallel)),
      // A rank that is dead is noticed at once, one that hangs by the groups that train.
      .savers = world.all("savers", std::chrono::hours(24)),
      .local_size = environment.local_world_size};
  dist::expect_same(ranks.all, "the program's version", version());
  dist::expect_same(ranks.all, "the configuration", config::to_yaml(config));
  if (ranks.first()) {
    log::info("ranks", "{} ranks ({}): {} on samples of their own{}", world.size(),
              environment.source, ranks.data_size(),
              ranks.parallel.context.alone()
                  ? std::string()
                  : fmt::format(", sequences shared by {} ({})", ranks.parallel.context.size(),
                                config.parallel.context_algorithm));
  }
  return ranks;
}

}  // namespace qianli::train
