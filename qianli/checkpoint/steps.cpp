#include "qianli/checkpoint/steps.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/strings.h"

namespace qianli::checkpoint {
namespace {

constexpr std::string_view kPrefix = "step_";
constexpr uint64_t kMaxPointerBytes = 256;

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

}  // namespace qianli::checkpoint
