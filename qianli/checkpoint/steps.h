// The names in a folder of checkpoints.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::checkpoint {

inline constexpr char kLatestName[] = "latest";

std::string step_name(int64_t step);
// The N of "step_N" as step_name writes it, nothing for other names.
std::optional<int64_t> step_of(std::string_view name);
// All N with a folder step_N, ascending; empty where the folder cannot be read.
std::vector<int64_t> steps_in(const std::filesystem::path& checkpoints_folder);
// What `latest` names, if it is there and well-formed.
std::optional<int64_t> pointed_step(const std::filesystem::path& checkpoints_folder);

}  // namespace qianli::checkpoint
