// Configurations from strangers: the first line is an override, the rest the file. Anything but
// ConfigError is a finding, and what is accepted must survive writing and reading.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/config/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  log::set_level(log::Level::kError);
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t line = input.find('\n');
  std::vector<std::string> overrides;
  if (line != std::string::npos && line > 0) overrides.push_back(input.substr(0, line));
  const std::string text = line == std::string::npos ? input : input.substr(line + 1);
  std::string yaml;
  try {
    yaml = config::to_yaml(config::from_text(text, "fuzz.yaml", overrides));
  } catch (const ConfigError&) {
    return 0;
  }
  if (config::to_yaml(config::from_text(yaml, "again.yaml", {})) != yaml) std::abort();
  return 0;
}
