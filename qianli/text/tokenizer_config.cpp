// tokenizer_config.json and special_tokens_map.json.
#include <cmath>

#include "qianli/base/json.h"
#include "qianli/text/tokenizer_impl.h"

namespace qianli::text {
namespace {

// "x", {"content": "x"}, or null, which becomes "": the file says that there is none.
void read_token(const Json& json, const char* key, std::optional<std::string>& token,
                const std::string& source) {
  const auto found = json.find(key);
  if (token || found == json.end()) return;
  const bool wrapped = found->is_object() && found->contains("content");
  const Json& value = wrapped ? (*found)["content"] : *found;
  if (value.is_null()) {
    token = "";
  } else if (value.is_string()) {
    token = value.get<std::string>();
  } else {
    throw_file_error(FileRole::kData, std::string("expected a token at ") + key + " of " + source);
  }
}

void read_tokens(const Json& json, TokenizerConfig& config, const std::string& source) {
  read_token(json, "bos_token", config.bos_token, source);
  read_token(json, "eos_token", config.eos_token, source);
  read_token(json, "pad_token", config.pad_token, source);
  read_token(json, "unk_token", config.unk_token, source);
}

std::optional<bool> truth(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_boolean() ? std::optional(found->get<bool>())
                                                    : std::nullopt;
}

void read_config(const Json& json, TokenizerConfig& config) {
  const auto name = json.find("tokenizer_class");
  if (name != json.end() && name->is_string()) config.tokenizer_class = name->get<std::string>();
  config.add_bos_token = truth(json, "add_bos_token");
  config.add_eos_token = truth(json, "add_eos_token");
  config.clean_up_tokenization_spaces = truth(json, "clean_up_tokenization_spaces").value_or(false);
  const auto length = json.find("model_max_length");
  // transformers writes 1e30 for "no limit".
  if (length != json.end() && length->is_number() && length->get<double>() > 0 &&
      length->get<double>() < 1e15) {
    config.model_max_length = std::llround(length->get<double>());
  }
}

std::optional<Json> read_object(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  Json json = read_json(path, FileRole::kData, kMaxConfigBytes);
  if (!json.is_object())
    throw_file_error(FileRole::kData, "expected an object in " + path.string());
  return json;
}

}  // namespace

TokenizerConfig read_tokenizer_config(const fs::path& folder) {
  TokenizerConfig config;
  const fs::path main = folder / "tokenizer_config.json", map = folder / "special_tokens_map.json";
  if (const auto json = read_object(main)) {
    read_config(*json, config);
    read_tokens(*json, config, main.string());
  }
  if (const auto json = read_object(map)) read_tokens(*json, config, map.string());
  return config;
}

}  // namespace qianli::text
