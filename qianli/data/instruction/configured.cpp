#include "qianli/data/instruction/configured.h"

#include <fmt/core.h>

#include "qianli/base/error.h"

namespace qianli::data {
namespace {

OrderedJson variables_of(const std::string& text) {
  if (text.empty()) return OrderedJson::object();
  OrderedJson variables = parse_ordered_json(text, "data.template_variables", FileRole::kConfig);
  if (variables.is_object()) return variables;
  throw ConfigError("data",
                    fmt::format("expected a JSON object as template variables, got '{}'", text));
}

void check_frame(const config::InstructionConfig& config, Legacy legacy) {
  const std::string& name = config.chat_template;
  if (legacy == Legacy::kNone || name.empty()) return;
  if (legacy == Legacy::kHunyuan && (name == kOwnTemplate || name == "hunyuan")) return;
  throw ConfigError("data",
                    fmt::format("expected no chat template with the handler {}, got '{}'",
                                config.handler_name, name),
                    legacy == Legacy::kHunyuan ? "it takes the one in the tokenizer's folder"
                                               : "its frame is its own");
}

}  // namespace

text::chat::Thinking thinking_of(const std::string& text) {
  if (text == "true") return text::chat::Thinking::kOn;
  return text == "false" ? text::chat::Thinking::kOff : text::chat::Thinking::kUnset;
}

KnownRows configured_rows(const config::InstructionConfig& config, const std::string& task,
                          const std::vector<fs::path>& inputs) {
  RowsOptions options{.inputs = inputs, .map_keys = config.map_keys};
  if (!config.handler_name.empty()) {
    if (!config.format.empty() || !task.empty())
      throw ConfigError("data", "expected a handler name, or format and task, got both");
    const Handler known = handler(config.handler_name);
    options.format = known.format;
    options.task = known.task;
    options.legacy = known.legacy;
  }
  if (!config.format.empty()) options.format = row_format(config.format);
  if (!task.empty()) options.task = instruction_task(task);
  return look_at_rows(options);
}

SampleEncoder configured_encoder(const config::InstructionConfig& config, const KnownRows& rows,
                                 std::shared_ptr<const text::Tokenizer> tokenizer,
                                 const fs::path& model, SampleOptions options) {
  options.task = rows.task;
  options.plain_text = rows.format == RowFormat::kText;
  options.legacy = rows.legacy;
  const bool framed = rows.legacy != Legacy::kNone;
  const bool needs = !options.plain_text && !framed && rows.task != InstructionTask::kProcessReward;
  const bool own = config.chat_template == kOwnTemplate || rows.legacy == Legacy::kHunyuan;
  check_frame(config, rows.legacy);
  if (needs && config.chat_template.empty()) {
    throw ConfigError(
        "data", fmt::format("expected a chat template for {} data, got none", name_of(rows.format)),
        "--template NAME, or data.template; `model` takes that of the tokenizer's folder");
  }
  if (!own) options.named_template = config.chat_template;
  const OrderedJson variables = variables_of(config.template_variables);
  if (needs && !own && (!config.variant.empty() || !variables.empty()))
    throw ConfigError("data", "expected a variant and variables with the template `model` only");
  options.own_template = {model, config.variant, variables};
  options.turns.thinking = thinking_of(config.enable_thinking);
  if (own && config.enable_thinking != "none")
    options.own_template.variables["enable_thinking"] = config.enable_thinking == "true";
  options.turns.default_system = config.default_system;
  options.turns.drop_thinking = !config.keep_thinking;
  options.turns.reasoning_effort = config.reasoning_effort;
  options.labels = {config.train_on_prompt, config.mask_history};
  options.cut = cut_rule(config.truncation);
  return {std::move(tokenizer), std::move(options)};
}

}  // namespace qianli::data
