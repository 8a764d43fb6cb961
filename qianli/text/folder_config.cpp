#include "qianli/text/folder_config.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/text/read_json.h"

namespace qianli::text {
namespace {

constexpr size_t kMaxTokenBytes = 4096;

[[noreturn]] void refuse(const std::string& where, const std::string& expected,
                         const std::string& got) {
  throw DataError("tokenizer", fmt::format("expected {} at {}, got {}", expected, where, got));
}

// Absent, null and of another type are alike: the flags have defaults.
std::optional<bool> truth(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_boolean() ? std::optional(found->get<bool>())
                                                    : std::nullopt;
}

// "x" or {"content": "x"}.
std::optional<std::string> token_text(const Json& json) {
  const Json* value = &json;
  if (json.is_object() && json.contains("content")) value = &json["content"];
  return value->is_string() ? std::optional(value->get<std::string>()) : std::nullopt;
}

std::optional<std::string> token_at(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found == json.end() ? std::nullopt : token_text(*found);
}

int32_t checked_id(int64_t id, const std::string& where) {
  if (id < 0 || id > kMaxId)
    refuse(where, fmt::format("an id from 0 to {}", kMaxId), std::to_string(id));
  return static_cast<int32_t>(id);
}

std::string checked_content(const std::optional<std::string>& content, const std::string& where) {
  if (!content || content->empty() || content->size() > kMaxTokenBytes) {
    refuse(where, fmt::format("a token of 1 to {} bytes", kMaxTokenBytes), "another value");
  }
  return *content;
}

// {"128000": {"content": "<|begin_of_text|>", "special": true, ...}, ...}
void read_added_tokens_decoder(const Json& json, const std::string& source,
                               std::vector<AddedToken>& out) {
  if (!json.is_object()) refuse("added_tokens_decoder of " + source, "an object", json.type_name());
  for (const auto& [key, value] : json.items()) {
    const std::string where = fmt::format("added_tokens_decoder.{} of {}", key, source);
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size()) refuse(where, "an id as key", key);
    AddedToken token;
    token.id = checked_id(id, where);
    token.content = checked_content(token_text(value), where);
    token.lstrip = truth(value, "lstrip").value_or(false);
    token.rstrip = truth(value, "rstrip").value_or(false);
    token.single_word = truth(value, "single_word").value_or(false);
    token.special = truth(value, "special").value_or(false);
    out.push_back(std::move(token));
  }
}

// {"<token>": 32000, ...}
void read_added_tokens_json(const Json& json, const std::string& source,
                            std::vector<AddedToken>& out) {
  if (!json.is_object()) refuse(source, "an object", json.type_name());
  for (const auto& [key, value] : json.items()) {
    const std::string where = fmt::format("'{}' of {}", key, source);
    if (!value.is_number_integer()) refuse(where, "an id", value.type_name());
    const int32_t id = checked_id(value.get<int64_t>(), where);
    const bool known =
        std::any_of(out.begin(), out.end(), [&, &content = key](const AddedToken& token) {
          return token.id == id || token.content == content;
        });
    if (!known) out.push_back({.id = id, .content = checked_content(key, where)});
  }
}

void read_special_tokens(const Json& json, FolderConfig& config, const std::string& source) {
  if (!config.cls_token) config.cls_token = token_at(json, "cls_token");
  if (!config.sep_token) config.sep_token = token_at(json, "sep_token");
  if (!config.mask_token) config.mask_token = token_at(json, "mask_token");
  const auto more = json.find("additional_special_tokens");
  if (more == json.end() || !more->is_array() || !config.additional_special_tokens.empty()) return;
  for (const Json& token : *more) {
    const std::string where = "additional_special_tokens of " + source;
    config.additional_special_tokens.push_back(checked_content(token_text(token), where));
  }
}

void read_main_config(const Json& json, FolderConfig& config, const std::string& source) {
  if (const auto added = json.find("added_tokens_decoder"); added != json.end()) {
    read_added_tokens_decoder(*added, source, config.added);
  }
  config.legacy = truth(json, "legacy");
  config.add_prefix_space = truth(json, "add_prefix_space");
  config.do_lower_case = truth(json, "do_lower_case");
  config.strip_accents = truth(json, "strip_accents");
  config.tokenize_chinese_chars = truth(json, "tokenize_chinese_chars");
}

}  // namespace

std::string FolderConfig::class_name() const {
  const std::string& name = main.tokenizer_class;
  return name.ends_with("Fast") ? name.substr(0, name.size() - 4) : name;
}

FolderConfig read_folder_config(const fs::path& folder) {
  FolderConfig config;
  config.main = read_tokenizer_config(folder);
  const auto with_object = [&](const char* name, const auto& read) {
    const fs::path path = folder / name;
    if (!fs::exists(path)) return;
    const Json json = read_json(path, FileRole::kData, kMaxConfigBytes);
    if (!json.is_object()) refuse(path.string(), "an object", json.type_name());
    read(json, path.string());
  };
  with_object("tokenizer_config.json", [&](const Json& json, const std::string& source) {
    read_main_config(json, config, source);
    read_special_tokens(json, config, source);
  });
  with_object("special_tokens_map.json", [&](const Json& json, const std::string& source) {
    read_special_tokens(json, config, source);
  });
  with_object("added_tokens.json", [&](const Json& json, const std::string& source) {
    read_added_tokens_json(json, source, config.added);
  });
  std::stable_sort(config.added.begin(), config.added.end(),
                   [](const auto& a, const auto& b) { return a.id < b.id; });
  return config;
}

void put_added_token(AddedToken token, TokenizerImpl& tokenizer) {
  const auto& source = tokenizer.source;
  const auto same_content = tokenizer.added_by_content.find(token.content);
  const auto same_id = tokenizer.added_by_id.find(token.id);
  const auto in_model = tokenizer.vocabulary.find(token.content);
  const bool has_other_id = (same_content != tokenizer.added_by_content.end() &&
                             tokenizer.added[same_content->second].id != token.id) ||
                            (in_model && *in_model != token.id);
  const bool id_is_taken = tokenizer.vocabulary.has(token.id) && in_model != token.id;
  if (has_other_id || id_is_taken) {
    refuse("the configuration beside " + source, "one id for a token and one token for an id",
           fmt::format("'{}' with id {}, where the model has another", token.content, token.id));
  }
  if (same_id != tokenizer.added_by_id.end()) {
    AddedToken& known = tokenizer.added[same_id->second];
    tokenizer.added_by_content.erase(known.content);
    tokenizer.added_by_content.emplace(token.content, same_id->second);
    known = std::move(token);
    return;
  }
  tokenizer.added_by_content.emplace(token.content, tokenizer.added.size());
  tokenizer.added_by_id.emplace(token.id, tokenizer.added.size());
  tokenizer.added.push_back(std::move(token));
}

namespace {

int32_t next_free_id(const TokenizerImpl& tokenizer) {
  int32_t next = tokenizer.vocabulary.end_id();
  for (const AddedToken& token : tokenizer.added) next = std::max(next, token.id + 1);
  return next;
}

// A token named without an id: special, and matched as it stands.
void put_special_token(const std::optional<std::string>& name, TokenizerImpl& tokenizer) {
  if (!name || name->empty()) return;
  const auto known = tokenizer.added_by_content.find(*name);
  if (known != tokenizer.added_by_content.end()) {
    AddedToken& token = tokenizer.added[known->second];
    token.special = token.matched = true;
    token.spelling.clear();
    return;
  }
  const auto in_model = tokenizer.vocabulary.find(*name);
  const int32_t id = in_model ? *in_model : next_free_id(tokenizer);
  put_added_token({.id = id, .content = *name, .special = true}, tokenizer);
}

}  // namespace

void add_configured_tokens(const FolderConfig& config, TokenizerImpl& tokenizer) {
  for (const AddedToken& token : config.added) put_added_token(token, tokenizer);
  for (const auto* name :
       {&config.main.bos_token, &config.main.eos_token, &config.main.unk_token, &config.sep_token,
        &config.main.pad_token, &config.cls_token, &config.mask_token}) {
    put_special_token(*name, tokenizer);
  }
  for (const std::string& name : config.additional_special_tokens) {
    put_special_token(name, tokenizer);
  }
  finish_added_tokens(tokenizer);
}

void put_bos_and_eos(const FolderConfig& config, TokenizerImpl& tokenizer) {
  if (config.main.add_bos_token.value_or(tokenizer.puts_bos) && tokenizer.bos) {
    tokenizer.prefix.insert(tokenizer.prefix.begin(), *tokenizer.bos);
  }
  if (config.main.add_eos_token.value_or(tokenizer.puts_eos) && tokenizer.eos) {
    tokenizer.suffix.push_back(*tokenizer.eos);
  }
}

}  // namespace qianli::text
