#include "apps/qianli/engine.h"

#include <dlfcn.h>
#include <fmt/core.h>

#include <cstdlib>
#include <filesystem>

#include "qianli/base/error.h"

namespace qianli::app {
namespace {

std::filesystem::path engine_path() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libqianli_engine.so";
}

const EngineApi& open_engine() {
  // Read by libgomp when it loads: threads that wait for the next parallel region spin only
  // briefly, so that a busy machine does not slow a step down many times over.
  ::setenv("GOMP_SPINCOUNT", "20000", /*overwrite=*/0);
  const auto path = engine_path();
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    throw ConfigError("engine",
                      fmt::format("expected the engine at {}: {}", path.string(), ::dlerror()),
                      "build with LibTorch: scripts/setup.sh");
  }
  using Entry = const EngineApi* (*)();
  const auto entry = reinterpret_cast<Entry>(::dlsym(library, "qianli_engine"));
  if (!entry) throw ConfigError("engine", fmt::format("{} is not Qianli's engine", path.string()));
  return *entry();
}

}  // namespace

const EngineApi& engine() {
  static const EngineApi& api = open_engine();
  return api;
}

bool has_engine() { return std::filesystem::exists(engine_path()); }

}  // namespace qianli::app
