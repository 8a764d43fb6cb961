#include "qianli/text/chat/tool_format.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::text::chat {
namespace {

// The spec of a function, with or without OpenAI's wrapper around it.
const OrderedJson& function_of(const OrderedJson& tool, size_t index) {
  const OrderedJson& function =
      tool.is_object() && tool.contains("function") ? tool["function"] : tool;
  if (!function.is_object() || !function.contains("name") || !function["name"].is_string()) {
    throw DataError("chat", fmt::format("expected a function with a name at tool {}", index));
  }
  return function;
}

std::string text_of(const OrderedJson& value) {
  return value.is_string() ? value.get<std::string>() : python_json(value);
}

std::string field(const OrderedJson& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? std::string() : text_of(*found);
}

bool is_required(const OrderedJson& parameters, const std::string& name) {
  const auto required = parameters.find("required");
  if (required == parameters.end() || !required->is_array()) return false;
  for (const OrderedJson& item : *required) {
    if (item.is_string() && item.get_ref<const std::string&>() == name) return true;
  }
  return false;
}

std::string argument_line(const std::string& name, const OrderedJson& property, bool required) {
  std::string choices, items;
  if (const auto values = property.find("enum");
      values != property.end() && values->is_array() && !values->empty()) {
    std::vector<std::string> texts;
    for (const OrderedJson& value : *values) texts.push_back(text_of(value));
    choices = ", should be one of [" + join(texts, ", ") + "]";
  }
  if (const auto item = property.find("items");
      item != property.end() && item->is_object() && !item->empty()) {
    items = ", where each item should be " + field(*item, "type");
  }
  return fmt::format("  - {} ({}{}): {}{}{}\n", name, field(property, "type"),
                     required ? ", required" : "", field(property, "description"), choices, items);
}

std::string arguments_text(const OrderedJson& function, size_t index) {
  std::string text;
  const auto parameters = function.find("parameters");
  if (parameters == function.end() || !parameters->is_object()) return text;
  const auto properties = parameters->find("properties");
  if (properties == parameters->end()) return text;
  if (!properties->is_object()) {
    throw DataError("chat",
                    fmt::format("expected an object at parameters.properties of tool {}", index));
  }
  for (const auto& [name, property] : properties->items()) {
    if (!property.is_object()) {
      throw DataError(
          "chat", fmt::format("expected an object for the parameter '{}' of tool {}", name, index));
    }
    text += argument_line(name, property, is_required(*parameters, name));
  }
  return text;
}

std::string default_text(const OrderedJson& tools) {
  std::string text;
  std::vector<std::string> names;
  for (size_t i = 0; i < tools.size(); ++i) {
    const OrderedJson& function = function_of(tools[i], i);
    names.push_back(function["name"].get<std::string>());
    text += fmt::format("> Tool Name: {}\nTool Description: {}\nTool Args:\n{}\n", names.back(),
                        field(function, "description"), arguments_text(function, i));
  }
  return fmt::format(
      "You have access to the following tools:\n{}Use the following format if using a tool:\n```\n"
      "Action: tool name (one of [{}]).\nAction Input: the input to the tool, in a JSON format "
      "representing the kwargs (e.g. ```{{\"input\": \"hello world\", \"num_beams\": "
      "5}}```).\n```\n",
      text, join(names, ", "));
}

std::string json_text(const OrderedJson& tools, const char* before, const char* after) {
  std::string text;
  for (size_t i = 0; i < tools.size(); ++i) {
    function_of(tools[i], i);
    const bool wrapped = tools[i].value("type", OrderedJson()) == "function";
    text += "\n" + python_json(wrapped ? tools[i]
                                       : OrderedJson{{"type", "function"}, {"function", tools[i]}});
  }
  return fmt::format(
      "{}# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
      "provided with function signatures within <tools></tools> XML tags:\n<tools>{}\n</tools>\n\n"
      "For each function call, return a json object with function name and arguments within "
      "<tool_call></tool_call> XML tags:\n<tool_call>\n{{\"name\": <function-name>, \"arguments\": "
      "<args-json-object>}}\n</tool_call>{}",
      before, text, after);
}

// Where in `content` a thought stands: from the first <think> to the last </think>.
std::pair<size_t, size_t> thought_place(const std::string& content) {
  const size_t begin = content.find("<think>"), end = content.rfind("</think>");
  if (begin == std::string::npos || end == std::string::npos || end < begin + 7) return {0, 0};
  return {begin, end + 8};
}

bool is_call(const OrderedJson& json) {
  return json.is_object() && json.contains("name") && json["name"].is_string() &&
         json.contains("arguments");
}

}  // namespace

std::string tools_text(ToolFormat format, const OrderedJson& tools) {
  if (tools.is_null() || tools.empty()) return {};
  if (!tools.is_array()) throw DataError("chat", "expected a list of tools");
  switch (format) {
    case ToolFormat::kDefault:
      return default_text(tools);
    case ToolFormat::kQwen3:
      return json_text(tools, "\n\n", "");
    case ToolFormat::kLing:
      return json_text(tools, "", "\ndetailed thinking off");
    case ToolFormat::kGlm4:
      break;
  }
  throw DataError("chat", "tools have no defined form in GLM-4's named templates",
                  "use the model's own chat template, or another named one");
}

FunctionText name_and_arguments(const std::string& content) {
  const auto parsed = try_json(content);
  const bool list = parsed && parsed->is_array() && !parsed->empty();
  if (!parsed || !is_call(list ? (*parsed)[0] : *parsed)) return {"", "", false};
  const OrderedJson& call = list ? (*parsed)[0] : *parsed;
  return {call["name"].get<std::string>(), python_json(call["arguments"]),
          !list || parsed->size() == 1};
}

std::string json_calls(const std::string& content) {
  const auto [begin, end] = thought_place(content);
  const std::string thought = content.substr(begin, end - begin);
  auto parsed = try_json(content.substr(0, begin) + content.substr(end));
  if (parsed && !parsed->is_array()) parsed = OrderedJson::array({*parsed});
  if (!parsed)
    throw DataError("chat", "expected JSON with name and arguments in a function message");
  std::vector<std::string> calls;
  for (const OrderedJson& call : *parsed) {
    if (!is_call(call)) {
      throw DataError("chat", "expected name and arguments in every call of a function message");
    }
    const OrderedJson ordered = {{"name", call["name"]}, {"arguments", call["arguments"]}};
    calls.push_back("<tool_call>\n" + python_json(ordered) + "\n</tool_call>");
  }
  return thought + join(calls, "\n");
}

}  // namespace qianli::text::chat
