#include "qianli/text/chat/template_file.h"

#include <fmt/core.h>

#include <map>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/strings.h"

namespace qianli::text::chat {
namespace {

constexpr std::string_view kInFile = ".json:";
constexpr uint64_t kMaxBytes = uint64_t{16} << 20;

// A closed set of words with what each means.
template <class T>
using Words = std::map<std::string, T>;

const Words<TemplateClass> kClasses = {{"Template", TemplateClass::kTemplate},
                                       {"Llama2Template", TemplateClass::kLlama2},
                                       {"LFDefaultTemplate", TemplateClass::kLfDefault},
                                       {"ReasoningTemplate", TemplateClass::kReasoning},
                                       {"DeepSeek4Template", TemplateClass::kDeepSeek4}};
const Words<ToolFormat> kToolFormats = {
    {"default", ToolFormat::kDefault}, {"qwen", ToolFormat::kQwen3},
    {"qwen3", ToolFormat::kQwen3},     {"ling", ToolFormat::kLing},
    {"glm4", ToolFormat::kGlm4},       {"glm4_moe", ToolFormat::kGlm4}};

class TemplateReader {
 public:
  TemplateReader(const OrderedJson& json, const std::string& source) : json_(json) {
    if (!json.is_object() || !json.contains("name") || !json["name"].is_string())
      throw ConfigError("chat",
                        fmt::format("{}: expected templates as objects with a name", source));
    place_ = fmt::format("{}: template '{}'", source, json["name"].get<std::string>());
  }

  NamedTemplate read() {
    check_keys(json_, {"name", "format_user", "format_assistant", "format_system",
                       "format_function", "format_observation", "format_tools", "format_separator",
                       "format_prefix", "default_system", "stop_words", "thought_words",
                       "efficient_eos", "replace_eos", "force_system", "template_class"});
    NamedTemplate made;
    made.name = json_["name"].get<std::string>();
    if (json_.contains("template_class"))
      made.kind = word(json_["template_class"], "template_class", kClasses);
    read_slots(made);
    if (const OrderedJson* tools = tool_format("format_tools"))
      made.tools = word(*tools, "tool_format", kToolFormats);
    if (const OrderedJson* calls = tool_format("format_function")) {
      const ToolFormat format = word(*calls, "tool_format", kToolFormats);
      made.json_calls = format == ToolFormat::kQwen3 || format == ToolFormat::kLing;
    }
    made.default_system = joined("default_system");
    made.stop_words = texts("stop_words");
    made.efficient_eos = flag("efficient_eos");
    made.replace_eos = flag("replace_eos");
    flag("force_system");  // has no effect there either
    read_thoughts(made);
    if (made.replace_eos && made.stop_words.empty())
      refuse("stop_words with replace_eos, whose first becomes the end of text", "none");
    return completed(std::move(made));
  }

 private:
  [[noreturn]] void refuse(const std::string& expected, const std::string& got) const {
    throw ConfigError("chat", fmt::format("{}: expected {}, got {}", place_, expected, got));
  }

  void check_keys(const OrderedJson& json, const std::vector<std::string>& known) const {
    for (const auto& [key, value] : json.items()) {
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      refuse(join(known, ", "), fmt::format("'{}'{}", key, suggestion(key, known)));
    }
  }

  template <class T>
  T word(const OrderedJson& json, const char* key, const Words<T>& words) const {
    std::vector<std::string> known;
    for (const auto& [name, meaning] : words) {
      if (json == name) return meaning;
      known.push_back(name);
    }
    refuse(fmt::format("{} {}", key, join(known, ", ")), json.dump());
  }

  std::string text(const OrderedJson& json, const std::string& key) const {
    if (json.is_string()) return json.get<std::string>();
    refuse(fmt::format("a text in '{}'", key), json.dump());
  }

  std::vector<std::string> texts(const std::string& key) const {
    std::vector<std::string> all;
    if (!json_.contains(key) || json_[key].is_null()) return all;
    if (!json_[key].is_array())
      refuse(fmt::format("a list of texts under '{}'", key), json_[key].dump());
    for (const OrderedJson& one : json_[key]) all.push_back(text(one, key));
    return all;
  }

  std::string joined(const std::string& key) const {
    if (json_.contains(key) && json_[key].is_string()) return json_[key].get<std::string>();
    return join(texts(key), "");
  }

  bool flag(const std::string& key) const {
    if (!json_.contains(key)) return false;
    if (json_[key].is_boolean()) return json_[key].get<bool>();
    refuse(fmt::format("true or false under '{}'", key), json_[key].dump());
  }

  Part part(const OrderedJson& json, const std::string& key) const {
    if (json.is_string()) return {Part::Kind::kText, json.get<std::string>()};
    if (json.is_object() && json.size() == 1 && json.contains("token"))
      return {Part::Kind::kToken, text(json["token"], key)};
    if (json == OrderedJson::array({"bos_token"})) return {Part::Kind::kBos, {}};
    if (json == OrderedJson::array({"eos_token"})) return {Part::Kind::kEos, {}};
    refuse(fmt::format(R"(a text, {{"token": ...}}, ["bos_token"] or ["eos_token"] in '{}')", key),
           json.dump());
  }

  // Null where the format is not there.
  const OrderedJson* format(const std::string& key) const {
    const auto found = json_.find(key);
    if (found == json_.end() || found->is_null()) return nullptr;
    if (!found->is_object()) refuse(fmt::format("an object under '{}'", key), found->dump());
    check_keys(*found, {"slots", "tool_format"});
    return &*found;
  }

  const OrderedJson* tool_format(const std::string& key) const {
    const OrderedJson* found = format(key);
    return found && found->contains("tool_format") ? &(*found)["tool_format"] : nullptr;
  }

  void read_slots(NamedTemplate& made) const {
    const std::pair<const char*, Slot*> slots[] = {
        {"format_user", &made.user},          {"format_assistant", &made.assistant},
        {"format_system", &made.system},      {"format_function", &made.function},
        {"format_prefix", &made.prefix},      {"format_observation", &made.observation},
        {"format_separator", &made.separator}};
    for (const auto& [key, slot] : slots) {
      const OrderedJson* found = format(key);
      if (!found || !found->contains("slots")) continue;
      const OrderedJson& parts = (*found)["slots"];
      if (!parts.is_array()) refuse(fmt::format("a list of slots in '{}'", key), parts.dump());
      slot->clear();
      for (const OrderedJson& one : parts) slot->push_back(part(one, key));
    }
  }

  void read_thoughts(NamedTemplate& made) const {
    const std::vector<std::string> words = texts("thought_words");
    if (words.empty()) return;
    if (words.size() != 2 || words[0].empty() || words[1].empty())
      refuse("two thought_words, at the beginning and at the end", join(words, ", "));
    made.thought_begin = words[0];
    made.thought_end = words[1];
  }

  const OrderedJson& json_;
  std::string place_;
};

OrderedJson to_json(const Slot& slot) {
  OrderedJson parts = OrderedJson::array();
  for (const Part& part : slot)
    parts.push_back(OrderedJson::array({static_cast<int>(part.kind), part.text}));
  return parts;
}

NamedTemplate read_from(const std::string& file, const std::string& name) {
  const std::string text = read_file(file, FileRole::kConfig, kMaxBytes);
  const OrderedJson all = parse_ordered_json(text, file, FileRole::kConfig);
  if (!all.is_array())
    throw ConfigError("chat", fmt::format("{}: expected a list of templates", file));
  std::vector<std::string> names;
  for (const OrderedJson& one : all) {
    const bool named = one.is_object() && one.contains("name") && one["name"].is_string();
    if (!named || one["name"] == name) return template_of_json(one, file);
    names.push_back(one["name"].get<std::string>());
  }
  throw ConfigError("chat",
                    fmt::format("{}: expected a template called '{}', got {}{}", file, name,
                                names.empty() ? "none at all" : "'" + join(names, "', '") + "'",
                                suggestion(name, names)));
}

}  // namespace

NamedTemplate template_of_json(const OrderedJson& json, const std::string& source) {
  return TemplateReader(json, source).read();
}

bool is_in_file(const std::string& name) { return name.find(kInFile) != name.npos; }

std::shared_ptr<const NamedTemplate> find_template(const std::string& name) {
  const size_t at = name.rfind(kInFile);
  if (at == name.npos) return std::make_shared<const NamedTemplate>(named_template(name));
  const size_t end = at + kInFile.size();
  return std::make_shared<const NamedTemplate>(
      read_from(name.substr(0, end - 1), name.substr(end)));
}

OrderedJson to_json(const NamedTemplate& named) {
  return {{"kind", static_cast<int>(named.kind)},
          {"prefix", to_json(named.prefix)},
          {"system", to_json(named.system)},
          {"user", to_json(named.user)},
          {"assistant", to_json(named.assistant)},
          {"observation", to_json(named.observation)},
          {"function", to_json(named.function)},
          {"separator", to_json(named.separator)},
          {"json_calls", named.json_calls},
          {"tools", static_cast<int>(named.tools)},
          {"default_system", named.default_system},
          {"stop_words", named.stop_words},
          {"efficient_eos", named.efficient_eos},
          {"replace_eos", named.replace_eos},
          {"thoughts", {named.thought_begin, named.thought_end}}};
}

}  // namespace qianli::text::chat
