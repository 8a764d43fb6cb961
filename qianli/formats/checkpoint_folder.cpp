#include "qianli/formats/checkpoint_folder.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/log.h"
#include "qianli/base/strings.h"
#include "qianli/formats/manifest.h"

namespace qianli::formats {
namespace {

constexpr std::string_view kPrefix = "step_";
constexpr uint64_t kMaxPointerBytes = 256;

// Whether all files of the manifest are there with their sizes; says why not.
bool complete(const fs::path& step_folder, std::string& problem) {
  try {
    expect_complete(step_folder, read_manifest(step_folder));
    return true;
  } catch (const CheckpointError& error) {
    problem = error.what();
    return false;
  }
}

}  // namespace

std::string step_name(int64_t step) { return fmt::format("{}{}", kPrefix, step); }

std::optional<int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const std::string_view digits = name.substr(kPrefix.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  // Only one spelling per step: step_07 is none of ours.
  if (error != std::errc() || step < 0 || step_name(step) != name) return std::nullopt;
  return step;
}

std::vector<int64_t> steps_in(const fs::path& checkpoints_folder) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator place(checkpoints_folder, error), end; !error && place != end;
       place.increment(error)) {
    std::error_code ignored;
    if (!place->is_directory(ignored)) continue;
    if (const auto step = step_of(place->path().filename().string())) steps.push_back(*step);
  }
  std::ranges::sort(steps);
  return steps;
}

std::optional<int64_t> pointed_step(const fs::path& checkpoints_folder) {
  try {
    const std::string text =
        read_file(checkpoints_folder / kLatestName, FileRole::kCheckpoint, kMaxPointerBytes);
    return step_of(trim(text));
  } catch (const CheckpointError&) {
    return std::nullopt;
  }
}

bool is_checkpoint(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_regular_file(folder / kManifestName, ignored);
}

std::optional<fs::path> latest_checkpoint(const fs::path& checkpoints_folder) {
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

}  // namespace qianli::formats
