// A folder of Qianli checkpoints: step_N beside the file `latest`, which names the newest.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::formats {

inline constexpr char kLatestName[] = "latest";

std::string step_name(int64_t step);
// The N of "step_N" as step_name writes it, nothing for other names.
std::optional<int64_t> step_of(std::string_view name);
// All N with a folder step_N, ascending; empty where the folder cannot be read.
std::vector<int64_t> steps_in(const std::filesystem::path& checkpoints_folder);
// What `latest` names, if it is there and well-formed.
std::optional<int64_t> pointed_step(const std::filesystem::path& checkpoints_folder);

// True where `folder` holds a manifest.json of a Qianli checkpoint, whole or not.
bool is_checkpoint(const std::filesystem::path& folder);
// The checkpoint to go on from: the one that `latest` names; where that is missing or incomplete
// (sizes of all files are compared), the complete one of the highest step, with a warning; nothing
// where there is none. Never throws for a folder that does not exist.
std::optional<std::filesystem::path> latest_checkpoint(
    const std::filesystem::path& checkpoints_folder);

}  // namespace qianli::formats
