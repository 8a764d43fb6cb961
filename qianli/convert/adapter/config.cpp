#include "qianli/convert/adapter/config.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/formats/reject.h"

namespace qianli::convert {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;
constexpr size_t kMaxPatterns = 4096;
constexpr size_t kMaxExpressions = 64;  // of those, true expressions: each may take many steps

[[noreturn]] void refuse(const std::string& source, const std::string& key,
                         const std::string& expected, const OrderedJson& got) {
  std::string text = got.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
  if (text.size() > 120) text = text.substr(0, 117) + "...";
  throw CheckpointError(
      "convert", fmt::format("{}: expected {} for '{}', got {}", source, expected, key, text),
      "merge this adapter with PEFT");
}

// Keys that, unless null, false or empty, make the merged weights something else.
constexpr const char* kUnsupported[] = {"layer_replication",
                                        "trainable_token_indices",
                                        "alora_invocation_tokens",
                                        "use_qalora",
                                        "lora_bias",
                                        "megatron_config",
                                        "arrow_config",
                                        "use_bdlora",
                                        "velora_config"};
// Those leave the base model's weights alone; the others (PiSSA, OLoRA, CorDA, LoftQ, ...) put a
// part of them into the adapter.
constexpr const char* kPlainInitialisations[] = {"gaussian", "eva", "orthogonal"};

bool is_neutral(const OrderedJson& value) {
  return value.is_null() || value == false || (value.is_structured() && value.empty());
}

void check_supported(const OrderedJson& config, const std::string& source) {
  const OrderedJson type = config.value("peft_type", OrderedJson());
  if (type != "LORA") refuse(source, "peft_type", "\"LORA\"", type);
  for (const char* key : kUnsupported) {
    const OrderedJson value = config.value(key, OrderedJson());
    if (!is_neutral(value)) refuse(source, key, "nothing", value);
  }
  const OrderedJson start = config.value("init_lora_weights", OrderedJson(true));
  if (start.is_boolean() || start.is_null()) return;
  for (const char* name : kPlainInitialisations) {
    if (start == name) return;
  }
  refuse(source, "init_lora_weights", "an initialisation that leaves the base model as it is",
         start);
}

bool flag(const OrderedJson& config, const char* key, const std::string& source) {
  const OrderedJson value = config.value(key, OrderedJson(false));
  if (value.is_null()) return false;
  if (!value.is_boolean()) refuse(source, key, "true or false", value);
  return value.get<bool>();
}

// A name: letters, digits and dots.
bool is_plain(const std::string& pattern) {
  return std::ranges::all_of(
      pattern, [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-' || c == '.'; });
}

std::vector<std::string> names(const OrderedJson& config, const char* key,
                               const std::string& source) {
  const OrderedJson list = config.value(key, OrderedJson());
  if (list.is_null()) return {};
  if (!list.is_array() || list.size() > kMaxPatterns)
    refuse(source, key, fmt::format("a list of at most {} names", kMaxPatterns), list);
  std::vector<std::string> names;
  for (const OrderedJson& name : list) {
    if (!name.is_string()) refuse(source, key, "names", list);
    names.push_back(name.get<std::string>());
  }
  return names;
}

double number(const OrderedJson& value, const std::string& key, const std::string& source) {
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  if (!std::isfinite(number)) refuse(source, key, "a number", value);
  return number;
}

int64_t to_rank(double value, const std::string& source) {
  if (value < 1 || value > kMaxAdapterRank || value != std::floor(value)) {
    refuse(source, "r", "a rank of at least 1", value);
  }
  return static_cast<int64_t>(value);
}

}  // namespace

AdapterConfig::AdapterConfig(const OrderedJson& config, const std::string& source) {
  if (!config.is_object()) refuse(source, "", "an object", config);
  check_supported(config, source);
  rank_ = to_rank(number(config.value("r", OrderedJson(8)), "r", source), source);
  alpha_ = number(config.value("lora_alpha", OrderedJson(8)), "lora_alpha", source);
  use_rslora_ = flag(config, "use_rslora", source);
  use_dora_ = flag(config, "use_dora", source);
  target_parameters_ = names(config, "target_parameters", source);
  ranks_ = read_patterns(config, "rank_pattern", source);
  for (const Exception& exception : ranks_) to_rank(exception.value, source);
  alphas_ = read_patterns(config, "alpha_pattern", source);
}

// PEFT: a key is a regular expression for the end of a module's name, from a dot on.
std::vector<AdapterConfig::Exception> AdapterConfig::read_patterns(const OrderedJson& config,
                                                                   const char* key,
                                                                   const std::string& source) {
  const OrderedJson patterns = config.value(key, OrderedJson());
  if (patterns.is_null()) return {};
  if (!patterns.is_object() || patterns.size() > kMaxPatterns) {
    refuse(source, key, fmt::format("an object of at most {} entries", kMaxPatterns), patterns);
  }
  std::vector<Exception> exceptions;
  size_t expressions = 0;
  for (const auto& [pattern, value] : patterns.items()) {
    if (!is_plain(pattern) && ++expressions > kMaxExpressions) {
      refuse(source, key, fmt::format("at most {} regular expressions", kMaxExpressions), patterns);
    }
    try {
      exceptions.push_back(
          {config::NamePattern("/^(?:.*\\.)?(?:" + pattern + ")$/"), number(value, key, source)});
    } catch (const ConfigError& error) {
      throw CheckpointError("convert", fmt::format("{}: {}: {}", source, key, error.what()));
    }
  }
  return exceptions;
}

double AdapterConfig::value_of(const std::vector<Exception>& exceptions, const std::string& module,
                               double otherwise) {
  for (const Exception& exception : exceptions) {
    if (exception.pattern.matches(module)) return exception.value;
  }
  return otherwise;
}

int64_t AdapterConfig::rank(const std::string& module) const {
  return static_cast<int64_t>(value_of(ranks_, module, static_cast<double>(rank_)));
}

void AdapterConfig::negate() {
  alpha_ = -alpha_;
  for (Exception& exception : alphas_) exception.value = -exception.value;
}

double AdapterConfig::scale(const std::string& module) const {
  const auto r = static_cast<double>(rank(module));
  return value_of(alphas_, module, alpha_) / (use_rslora_ ? std::sqrt(r) : r);
}

OrderedJson read_adapter_json(const std::filesystem::path& folder) {
  const auto path = folder / "adapter_config.json";
  const std::string text = read_file(path, FileRole::kCheckpoint, kMaxConfigBytes);
  return parse_ordered_json(text, path.string(), FileRole::kCheckpoint);
}

AdapterConfig read_adapter_config(const std::filesystem::path& folder) {
  return AdapterConfig(read_adapter_json(folder), (folder / "adapter_config.json").string());
}

}  // namespace qianli::convert
