// Small text helpers shared by all rooms.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qianli {

// The candidate nearest to `word` by edit distance, if it is near enough to be a typing error.
std::optional<std::string> nearest_name(std::string_view word, std::span<const std::string> candidates);
// " (did you mean 'x'?)" or "".
std::string suggestion(std::string_view word, std::span<const std::string> candidates);

std::vector<std::string> split(std::string_view text, char separator);
std::string join(std::span<const std::string> parts, std::string_view separator);
std::string_view trim(std::string_view text);

}  // namespace qianli
