#include "qianli/infer/generation_config.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/json.h"

namespace qianli::infer {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 20;

class Reader {
 public:
  explicit Reader(const fs::path& path)
      : path_(path.string()), json_(read_json(path, FileRole::kConfig, kMaxBytes)) {
    if (!json_.is_object()) {
      throw ConfigError("generation_config", fmt::format("{}: expected a JSON object", path_));
    }
  }

  double number(const char* key, double fallback) const {
    const Json* value = find(key);
    if (!value) return fallback;
    if (!value->is_number()) refuse(key, "a number");
    return value->get<double>();
  }
  int64_t integer(const char* key, int64_t fallback) const {
    const Json* value = find(key);
    if (!value) return fallback;
    if (!value->is_number_integer()) refuse(key, "an integer");
    return value->get<int64_t>();
  }
  bool flag(const char* key) const {
    const Json* value = find(key);
    if (!value) return false;
    if (!value->is_boolean()) refuse(key, "true or false");
    return value->get<bool>();
  }
  // One id or a list of them.
  std::vector<int64_t> ids(const char* key) const {
    const Json* value = find(key);
    if (!value) return {};
    if (value->is_number_integer()) return {value->get<int64_t>()};
    if (!value->is_array()) refuse(key, "an integer or a list of integers");
    std::vector<int64_t> found;
    for (const Json& one : *value) {
      if (!one.is_number_integer()) refuse(key, "an integer or a list of integers");
      found.push_back(one.get<int64_t>());
    }
    return found;
  }

 private:
  const Json* find(const char* key) const {
    const auto place = json_.find(key);
    return place == json_.end() || place->is_null() ? nullptr : &*place;
  }
  [[noreturn]] void refuse(const char* key, const char* wanted) const {
    throw ConfigError("generation_config",
                      fmt::format("{}: expected {} for {}", path_, wanted, key));
  }

  std::string path_;
  Json json_;
};

}  // namespace

GenerationConfig load_generation_config(const fs::path& folder) {
  const fs::path path = folder / "generation_config.json";
  if (!fs::exists(path)) return {};
  const Reader reader(path);
  GenerationConfig config;
  config.eos_token_ids = reader.ids("eos_token_id");
  config.sampling.repetition_penalty = reader.number("repetition_penalty", 1.0);
  if (reader.flag("do_sample")) {
    config.sampling.temperature = reader.number("temperature", 1.0);
    config.sampling.top_k = reader.integer("top_k", 0);
    config.sampling.top_p = reader.number("top_p", 1.0);
  }
  config.sampling.validate();
  return config;
}

}  // namespace qianli::infer
