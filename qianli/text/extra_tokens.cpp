#include "qianli/text/extra_tokens.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/text/read_json.h"

namespace qianli::text {
namespace {

constexpr size_t kMaxTokenBytes = 4096;
constexpr std::array<const char*, 7> kNamedTokens = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

[[noreturn]] void refuse(const std::string& where, const std::string& expected,
                         const std::string& got) {
  throw DataError("tokenizer", fmt::format("expected {} at {}, got {}", expected, where, got));
}

bool flag(const OrderedJson& json, const char* key, bool otherwise) {
  const auto found = json.find(key);
  return found != json.end() && found->is_boolean() ? found->get<bool>() : otherwise;
}

// "x", which is special, or {"content": "x", "lstrip": …}.
AddedToken token_of(const OrderedJson& json, const std::string& where) {
  AddedToken token;
  token.id = -1;
  const OrderedJson* content = &json;
  if (json.is_object()) {
    if (!json.contains("content")) refuse(where, "a key 'content'", "none");
    content = &json["content"];
    token.special = flag(json, "special", false);
    token.normalized = flag(json, "normalized", !token.special);
    token.lstrip = flag(json, "lstrip", false);
    token.rstrip = flag(json, "rstrip", false);
    token.single_word = flag(json, "single_word", false);
  } else {
    token.special = true;
  }
  if (!content->is_string()) refuse(where, "a token", content->type_name());
  token.content = content->get<std::string>();
  if (token.content.size() > kMaxTokenBytes) {
    refuse(where, fmt::format("a token of at most {} bytes", kMaxTokenBytes),
           fmt::format("{} bytes", token.content.size()));
  }
  return token;
}

class Reader {
 public:
  explicit Reader(const fs::path& folder) : folder_(folder) {}

  std::vector<AddedToken> run() {
    if (auto config = object("tokenizer_config.json")) config_ = *std::move(config);
    const bool listed = config_.contains("added_tokens_decoder");
    if (!listed) merge_special_tokens_map();
    for (const char* name : kNamedTokens) {
      if (is_token(name)) named_.push_back(token_of(config_[name], place(name)));
    }
    if (listed) {
      read_added_tokens_decoder(config_["added_tokens_decoder"]);
    } else if (const auto added = object("added_tokens.json")) {
      read_added_tokens_json(*added);
    }
    read_model_specific();
    for (AddedToken& token : named_) {
      token.special = true;
      tokens_.push_back(std::move(token));
    }
    read_list();
    return std::move(tokens_);
  }

 private:
  std::optional<OrderedJson> object(const char* name) const {
    const fs::path path = folder_ / name;
    if (!fs::exists(path)) return std::nullopt;
    OrderedJson json = parse_ordered_json(read_file(path, FileRole::kData, kMaxConfigBytes),
                                          path.string(), FileRole::kData);
    if (!json.is_object()) refuse(path.string(), "an object", json.type_name());
    return json;
  }
  std::string place(const std::string& key) const {
    return fmt::format("{} of {}", key, (folder_ / "tokenizer_config.json").string());
  }
  bool is_token(const std::string& key) const {
    return config_.contains(key) && (config_[key].is_string() || config_[key].is_object());
  }
  bool is_named(const std::string& content) const {
    return std::any_of(named_.begin(), named_.end(),
                       [&](const AddedToken& token) { return token.content == content; });
  }

  void merge_special_tokens_map() {
    auto map = object("special_tokens_map.json");
    if (!map) return;
    for (auto& [key, value] : map->items()) {
      if (value.is_object() && value.contains("content")) value["special"] = true;
      config_[key] = value;
    }
  }

  void read_added_tokens_decoder(const OrderedJson& json) {
    const std::string key = "added_tokens_decoder";
    if (!json.is_object()) refuse(place(key), "an object", json.type_name());
    for (const auto& [number, value] : json.items()) {
      const std::string where = place(key + "." + number);
      if (!value.is_object()) refuse(where, "an object", value.type_name());
      AddedToken token = token_of(value, where);
      const char* last = number.data() + number.size();
      const auto [end, error] = std::from_chars(number.data(), last, token.id);
      if (error != std::errc() || end != last || token.id < 0 || token.id > kMaxId) {
        refuse(where, fmt::format("an id from 0 to {} as key", kMaxId), "'" + number + "'");
      }
      if (is_named(token.content)) token.special = true;
      tokens_.push_back(std::move(token));
    }
    sort_by_id();
  }

  void read_added_tokens_json(const OrderedJson& json) {
    for (const auto& [content, id] : json.items()) {
      const std::string where = fmt::format("'{}' of added_tokens.json", content);
      if (!id.is_number_integer() || id < 0 || id > kMaxId) {
        refuse(where, fmt::format("an id from 0 to {}", kMaxId), "another value");
      }
      AddedToken token = token_of(content, where);
      token.special = is_named(content) || in_list(content);
      token.normalized = !token.special;
      token.id = id.get<int32_t>();
      tokens_.push_back(std::move(token));
    }
    sort_by_id();
  }

  void sort_by_id() {
    std::stable_sort(tokens_.begin(), tokens_.end(),
                     [](const auto& a, const auto& b) { return a.id < b.id; });
  }

  // "image_token": "<image>", and extra_special_tokens as an object of such, in the file's order.
  void read_model_specific() {
    for (const auto& [key, value] : config_.items()) {
      const bool known = std::ranges::find(kNamedTokens, key) != kNamedTokens.end();
      const bool token = value.is_string() || (value.is_object() && value.contains("content"));
      if (!known && token && key.ends_with("_token")) {
        named_.push_back(token_of(value, place(key)));
      }
    }
    const auto extra = config_.find("extra_special_tokens");
    if (extra == config_.end() || !extra->is_object()) return;
    for (const auto& [key, value] : extra->items()) {
      named_.push_back(token_of(value, place("extra_special_tokens." + key)));
    }
  }

  const OrderedJson* list() const {
    for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
      if (config_.contains(key)) return config_[key].is_array() ? &config_[key] : nullptr;
    }
    return nullptr;
  }
  bool in_list(const std::string& content) const {
    return list() && std::ranges::find(*list(), OrderedJson(content)) != list()->end();
  }
  void read_list() {
    if (!list()) return;
    for (const OrderedJson& item : *list()) {
      tokens_.push_back(token_of(item, place("extra_special_tokens")));
    }
  }

  const fs::path& folder_;
  OrderedJson config_ = OrderedJson::object();
  std::vector<AddedToken> named_, tokens_;
};

}  // namespace

std::vector<AddedToken> read_extra_tokens(const fs::path& folder) { return Reader(folder).run(); }

void add_extra_tokens(const std::vector<AddedToken>& tokens, TokenizerImpl& tokenizer) {
  const int32_t model_size = tokenizer.vocabulary.size();
  int32_t largest = -1;
  for (const AddedToken& token : tokenizer.added) largest = std::max(largest, token.id);
  for (AddedToken token : tokens) {
    if (token.content.empty() || tokenizer.added_by_content.contains(token.content)) continue;
    const auto in_model = tokenizer.vocabulary.find(token.content);
    const int32_t id = in_model.value_or(largest >= model_size ? largest + 1 : model_size);
    if (!in_model && (tokenizer.vocabulary.has(id) || id > kMaxId)) {
      refuse(tokenizer.source, fmt::format("a free id for '{}'", token.content),
             fmt::format("{}, which another token has", id));
    }
    if (token.id != id && !(token.id < 0 && in_model)) {
      log::warn("tokenizer", "'{}' stands beside {} only and gets id {}, as in transformers",
                token.content, tokenizer.source, id);
    }
    token.id = id;
    largest = std::max(largest, id);
    tokenizer.added_by_content.emplace(token.content, tokenizer.added.size());
    tokenizer.added_by_id.emplace(token.id, tokenizer.added.size());
    tokenizer.added.push_back(std::move(token));
  }
}

}  // namespace qianli::text
