#include "qianli/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <mutex>

#include "qianli/base/error.h"
#include "qianli/base/progress.h"

namespace qianli::log {
namespace {

struct Sinks {
  spdlog::logger screen{"screen", std::make_shared<spdlog::sinks::stderr_color_sink_mt>()};
  std::shared_ptr<spdlog::logger> file;
  std::mutex mutex;

  Sinks() {
    screen.set_pattern("%^%L%$ %v");
    screen.set_level(spdlog::level::info);
  }
};

Sinks& sinks() {
  static auto* instance = new Sinks;  // never destroyed: threads may log until the very end
  return *instance;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

void set_level(Level lowest_shown) { sinks().screen.set_level(to_spdlog(lowest_shown)); }

void to_file(const std::filesystem::path& path) {
  std::lock_guard lock(sinks().mutex);
  if (path.empty()) {
    sinks().file.reset();
    return;
  }
  try {
    sinks().file = std::make_shared<spdlog::logger>(
        "file", std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string()));
  } catch (const spdlog::spdlog_ex& error) {
    throw ConfigError("log", fmt::format("cannot write {}: {}", path.string(), error.what()));
  }
  sinks().file->set_pattern("%Y-%m-%d %H:%M:%S %L %v");
  sinks().file->flush_on(spdlog::level::info);
}

void write(Level level, std::string_view component, std::string_view text) {
  const std::string line = fmt::format("{}: {}", component, text);
  std::lock_guard lock(sinks().mutex);
  clear_progress_line();
  sinks().screen.log(to_spdlog(level), line);
  if (sinks().file) sinks().file->log(to_spdlog(level), line);
}

void say(std::string_view text) {
  std::lock_guard lock(sinks().mutex);
  clear_progress_line();
  // Not fmt::print: it throws where standard error is closed or full, and there is nobody to tell.
  const std::string line = fmt::format("{}\n", text);
  std::fwrite(line.data(), 1, line.size(), stderr);
  if (sinks().file) sinks().file->info(text);
}

}  // namespace qianli::log
