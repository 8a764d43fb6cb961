#include "qianli/text/chat/model_template.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::text::chat {
namespace {

constexpr uint64_t kMaxTemplate = uint64_t{1} << 22, kMaxConfig = uint64_t{1} << 28;

[[noreturn]] void refuse(const std::string& expected, const std::string& file) {
  throw DataError("chat template", fmt::format("expected {} in {}", expected, file));
}

// chat_template: a text, or [{"name": ..., "template": ...}].
void read_templates(const OrderedJson& json, const std::string& file, ModelTemplateFiles& files) {
  if (json.is_null()) return;
  if (json.is_string()) {
    files.templates["default"] = {json.get<std::string>(), file};
    return;
  }
  if (!json.is_array()) refuse("a text or a list at chat_template", file);
  for (const OrderedJson& entry : json) {
    const bool fits = entry.is_object() && entry.contains("name") && entry["name"].is_string() &&
                      entry.contains("template") && entry["template"].is_string();
    if (!fits) refuse("name and template in every item of chat_template", file);
    files.templates[entry["name"].get<std::string>()] = {entry["template"].get<std::string>(),
                                                         file};
  }
}

// Every "..._token" that is a text or an object with one: {"content": "<s>"}.
void read_tokens(const OrderedJson& json, std::map<std::string, std::string>& tokens) {
  for (const auto& [key, value] : json.items()) {
    if (!key.ends_with("_token")) continue;
    const bool wrapped = value.is_object() && value.contains("content");
    const OrderedJson& token = wrapped ? value["content"] : value;
    if (token.is_string()) tokens.try_emplace(key, token.get<std::string>());
  }
}

OrderedJson parse_object(std::string_view text, const std::string& file) {
  OrderedJson json = parse_ordered_json(text, file, FileRole::kData);
  if (!json.is_object()) refuse("an object", file);
  return json;
}

const ModelTemplateFiles::Source& choose(const ModelTemplateFiles& files, const std::string& name,
                                         bool with_tools) {
  const auto& templates = files.templates;
  std::vector<std::string> names;
  for (const auto& [known, source] : templates) names.push_back(known);
  if (templates.empty()) {
    throw DataError("chat template", "the model's folder has no chat template",
                    "choose a named one with --template, or give a file with --jinja");
  }
  if (!name.empty()) {
    const auto found = templates.find(name);
    if (found != templates.end()) return found->second;
    throw ConfigError(
        "chat template",
        fmt::format("the model has no chat template '{}'{}", name, suggestion(name, names)),
        "it has " + join(names, ", "));
  }
  if (with_tools && templates.count("tool_use")) return templates.at("tool_use");
  if (templates.count("default")) return templates.at("default");
  if (templates.size() == 1) return templates.begin()->second;
  throw ConfigError("chat template", "the model has several chat templates and no default one",
                    "choose one of " + join(names, ", "));
}

}  // namespace

void ModelTemplateFiles::read_config(std::string_view json_text, const std::string& file) {
  const OrderedJson json = parse_object(json_text, file);
  read_tokens(json, tokens);
  if (const auto found = json.find("chat_template"); found != json.end())
    read_templates(*found, file, *this);
}

ModelTemplateFiles ModelTemplateFiles::read(const fs::path& folder) {
  ModelTemplateFiles files;
  const auto text_of = [&](const fs::path& path, uint64_t limit) {
    return read_file(path, FileRole::kData, limit);
  };
  const fs::path processor = folder / "chat_template.json",
                 config = folder / "tokenizer_config.json",
                 map = folder / "special_tokens_map.json", main = folder / "chat_template.jinja",
                 more = folder / "additional_chat_templates";
  // The later one wins.
  if (fs::exists(processor)) {
    const OrderedJson json = parse_object(text_of(processor, kMaxConfig), processor.string());
    if (json.contains("chat_template"))
      read_templates(json["chat_template"], processor.string(), files);
  }
  if (fs::exists(config)) files.read_config(text_of(config, kMaxConfig), config.string());
  if (fs::exists(map))
    read_tokens(parse_object(text_of(map, kMaxConfig), map.string()), files.tokens);
  if (fs::exists(main)) files.templates["default"] = {text_of(main, kMaxTemplate), main.string()};
  if (!fs::is_directory(more)) return files;
  for (const auto& entry : fs::directory_iterator(more)) {
    if (entry.path().extension() != ".jinja") continue;
    files.templates[entry.path().stem().string()] = {text_of(entry.path(), kMaxTemplate),
                                                     entry.path().string()};
  }
  return files;
}

ModelTemplate::ModelTemplate(const ModelTemplateFiles& files, const std::string& name,
                             bool with_tools)
    : ModelTemplate(choose(files, name, with_tools), files.tokens) {}

ModelTemplate::ModelTemplate(const ModelTemplateFiles::Source& source,
                             std::map<std::string, std::string> tokens)
    : file_(source.file), tokens_(std::move(tokens)), template_(source.text, source.file) {}

jinja::Rendered ModelTemplate::render(const ChatRequest& request,
                                      const jinja::Limits& limits) const {
  OrderedJson variables = OrderedJson::object();
  for (const auto& [name, token] : tokens_) variables[name] = token;
  for (const auto& [name, value] : request.variables.items()) variables[name] = value;
  variables["messages"] = request.messages;
  variables["tools"] = request.tools;
  variables["documents"] = request.documents;
  variables["add_generation_prompt"] = request.add_generation_prompt;
  return template_.render(variables, request.now, limits);
}

std::tm local_time_now() {
  const std::time_t seconds = std::time(nullptr);
  std::tm now{};
  localtime_r(&seconds, &now);
  return now;
}

std::vector<bool> tokens_in_ranges(const std::shared_ptr<const Tokenizer>& tokenizer,
                                   std::span<const int32_t> ids, std::string_view text,
                                   std::span<const jinja::TextRange> ranges) {
  if (tokenizer->decode(ids, false) != text) {
    throw DataError("chat",
                    "this tokenizer does not give the rendered text back, so the assistant's "
                    "tokens cannot be told",
                    "train with a named template, whose turns are tokenized one by one");
  }
  std::vector<bool> inside(ids.size());
  StreamingDecoder stream(tokenizer);
  size_t begin = 0, end = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    // Bytes that wait for the rest of their character belong to the place where it begins.
    begin = end;
    end += stream.push(ids[i]).size();
    inside[i] = std::any_of(ranges.begin(), ranges.end(), [&](const jinja::TextRange& range) {
      return begin < range.end && std::max(end, begin + 1) > range.begin;
    });
  }
  return inside;
}

}  // namespace qianli::text::chat
