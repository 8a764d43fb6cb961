// Log lines: to stderr, and to a file once a run folder exists. "component: text".
#pragma once

#include <fmt/core.h>

#include <filesystem>
#include <string>
#include <string_view>

namespace qianli::log {

enum class Level { kDebug, kInfo, kWarning, kError };

void set_level(Level lowest_shown);
// Everything logged from now on also goes to `path` (appended). Empty path: stops. Throws
// ConfigError where it cannot be written.
void to_file(const std::filesystem::path& path);
void write(Level level, std::string_view component, std::string_view text);
// Plain result lines for the user's eyes: stderr without prefix, and the log file.
void say(std::string_view text);

template <class... Args>
void info(std::string_view component, fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kInfo, component, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warn(std::string_view component, fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kWarning, component, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(std::string_view component, fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kError, component, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void debug(std::string_view component, fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kDebug, component, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace qianli::log
