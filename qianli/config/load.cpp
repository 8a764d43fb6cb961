#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/config/config.h"
#include "qianli/config/read.h"
#include "qianli/config/validate.h"
#include "qianli/config/write.h"

namespace qianli::config {
namespace {

constexpr uint64_t kFileBytes = uint64_t{1} << 20;

// Fills what follows from the number of steps, where it is known.
void resolve_schedule(Config& config) {
  OptimConfig& optim = config.optim;
  if (!optim.decay_steps && config.train.steps > 0) optim.decay_steps = config.train.steps;
  if (optim.lr_schedule == "wsd" && !optim.wsd_decay_steps && optim.decay_steps) {
    optim.wsd_decay_steps = std::max<int64_t>(1, *optim.decay_steps / 10);
  }
}

// Fills what follows from other values.
void resolve(Config& config, const std::string& name) {
  if (!config.data.seed) config.data.seed = config.train.seed;
  if (!config.train.global_batch_size)
    config.train.global_batch_size = config.train.micro_batch_size;
  resolve_schedule(config);
  if (config.run.dir.empty()) config.run.dir = "runs/" + name;
}

Config build(const YamlNode& tree, const std::string& source, const std::string& name,
             std::span<const std::string> overrides) {
  Config config;
  Section root = fields_of(config);
  Places places;
  Reader reader(root, places);
  reader.read_file_section(root, tree, source);
  for (const auto& text : overrides) reader.read_override(text);
  resolve(config, name);
  validate_at(config, places);
  warn_without_effect(config, places);
  return config;
}

}  // namespace

Config load(const fs::path& yaml, std::span<const std::string> overrides) {
  const std::string text = read_file(yaml, FileRole::kConfig, kFileBytes);
  return from_text(text, yaml.string(), overrides);
}

Config from_text(const std::string& yaml, const std::string& source,
                 std::span<const std::string> overrides) {
  std::string stem = fs::path(source).stem().string();
  if (stem.empty()) stem = "run";
  return build(parse_yaml(yaml, source), source, stem, overrides);
}

Config from_overrides_only(std::span<const std::string> overrides) {
  return build({}, "", "run", overrides);
}

void set_steps(Config& config, int64_t steps) {
  config.train.steps = steps;
  config.train.epochs = 0;
  resolve_schedule(config);
  validate(config);
}

std::string to_yaml(const Config& config) {
  Config copy = config;
  return json_to_yaml(section_to_json(fields_of(copy)));
}

std::string to_json(const Config& config) {
  Config copy = config;
  return section_to_json(fields_of(copy))
      .dump(2, ' ', false, OrderedJson::error_handler_t::replace);
}

std::map<std::string, std::string> op_backends(const Config& config) {
  Config copy = config;
  const auto ops = find_field(fields_of(copy), "ops");
  std::map<std::string, std::string> backends;
  for (const Field& field : std::get<Section>(ops->value).fields) {
    const auto& backend = *std::get<std::optional<std::string>*>(field.value);
    if (backend) backends.emplace(field.option.key, *backend);
  }
  return backends;
}

}  // namespace qianli::config
