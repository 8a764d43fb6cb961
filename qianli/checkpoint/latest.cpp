// Which checkpoint to resume from.
#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/log.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/checkpoint/manifest.h"
#include "qianli/checkpoint/steps.h"

namespace qianli::checkpoint {
namespace {

// Whether all files of the manifest are there with their sizes; says why not.
bool complete(const fs::path& step_folder, std::string& problem) {
  try {
    return files_complete(step_folder, read_manifest(step_folder), problem);
  } catch (const CheckpointError& error) {
    problem = error.what();
    return false;
  }
}

}  // namespace

std::optional<fs::path> latest(const fs::path& checkpoints_folder) {
  std::string problem;
  const auto pointed = pointed_step(checkpoints_folder);
  if (pointed) {
    const fs::path folder = checkpoints_folder / step_name(*pointed);
    if (complete(folder, problem)) return folder;
    log::warn("checkpoint", "{} cannot be used: {}", folder.string(), problem);
  }
  auto steps = steps_in(checkpoints_folder);
  std::ranges::reverse(steps);
  for (const int64_t step : steps) {
    if (step == pointed) continue;
    const fs::path folder = checkpoints_folder / step_name(step);
    if (complete(folder, problem)) {
      log::warn("checkpoint", "{} names no complete checkpoint; going on from {}",
                (checkpoints_folder / kLatestName).string(), folder.string());
      return folder;
    }
    log::warn("checkpoint", "{} cannot be used: {}", folder.string(), problem);
  }
  return std::nullopt;
}

}  // namespace qianli::checkpoint
