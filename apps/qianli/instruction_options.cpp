#include "apps/qianli/instruction_options.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>

#include "apps/qianli/template_options.h"
#include "qianli/base/error.h"
#include "qianli/base/log.h"

namespace qianli::app {
namespace {

constexpr const char* kOwn = "model";

void add_rows(CLI::App& command, InstructionFlags& flags, const char* group) {
  command
      .add_option("--template,--prompt-type", flags.named_template,
                  "Chat template: a name (see `tokenizer chat --help`), or `model` for the one in "
                  "the tokenizer's folder")
      ->group(group);
  command
      .add_option("--format", flags.format,
                  "alpaca, sharegpt, openai, completion, text or steps [as the rows look]")
      ->group(group);
  command
      .add_option("--task", flags.task,
                  "sft, preference, process-reward, ppo or prompts [as the rows look]")
      ->group(group);
  command
      .add_option("--handler-name", flags.handler,
                  "MindSpeed-LLM's name for format and task, like AlpacaStyleInstructionHandler")
      ->group(group);
  command
      .add_option("--map-keys", flags.map_keys,
                  "JSON: the column for each key, like {\"prompt\": \"question\"}")
      ->group(group);
  command
      .add_option("--dataset-additional-keys", flags.additional,
                  "Of prompts: columns kept; labels is the answer")
      ->group(group);
  command
      .add_option("--placeholder-token", flags.step_marker, "Of process rewards: ends a step [ки]")
      ->group(group);
  command.add_option("--reward-tokens", flags.reward_tokens, "Of process rewards: the labels")
      ->group(group);
}

void add_template(CLI::App& command, InstructionFlags& flags, const char* group) {
  command
      .add_option("--enable-thinking", flags.thinking,
                  "none: keep thoughts; true: learn an empty one where there is none; false: drop "
                  "them")
      ->check(CLI::IsMember({"none", "true", "false"}))
      ->group(group);
  command
      .add_option_function<std::string>(
          "--default-system",
          [&flags](const std::string& text) {
            flags.default_system = text;
            flags.has_default_system = true;
          },
          "In the place of the template's system text, \"\" for none")
      ->group(group);
  command.add_option("--variant", flags.variant, "Of --template model: which of several")
      ->group(group);
  command.add_option("--set", flags.variables, "Of --template model: NAME=VALUE for its variables")
      ->group(group);
  command.add_flag("--keep-thinking", flags.keep_thinking, "Of deepseek4: earlier thoughts stay")
      ->group(group);
  command.add_option("--reasoning-effort", flags.effort, "Of deepseek4: none, high or max")
      ->group(group);
}

void add_samples(CLI::App& command, InstructionFlags& flags, const char* group) {
  command
      .add_option("--seq-length", flags.sequence_length,
                  "Tokens of a training sequence; samples as long or longer are left out")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 24))
      ->group(group);
  command
      .add_option("--truncation", flags.truncation,
                  "two-sided or proportional: cut long samples so that they stay; drop; template: "
                  "as MindSpeed-LLM [template]")
      ->group(group);
  command.add_flag("--pack", flags.pack, "Put several samples into a sequence")->group(group);
  command
      .add_flag("--neat-pack", flags.neat_pack,
                "With --pack: number the samples in the attention mask")
      ->group(group);
  command.add_flag("--append-eod", flags.append_eod, "One more end of text behind each sample")
      ->group(group);
  command.add_flag("--train-on-prompt", flags.train_on_prompt, "Questions are learnt, too")
      ->group(group);
  command.add_flag("--mask-history", flags.mask_history, "Only the last answer is learnt")
      ->group(group);
}

}  // namespace

void InstructionFlags::add_to(CLI::App& command) {
  add_rows(command, *this, "Instruction data");
  add_template(command, *this, "Instruction data: template");
  add_samples(command, *this, "Instruction data: samples");
}

bool InstructionFlags::asked() const {
  return !named_template.empty() || !format.empty() || !task.empty() || !handler.empty() ||
         !map_keys.empty() || pack || neat_pack;
}

void InstructionFlags::check_unasked() const {
  const std::pair<bool, const char*> given[] = {{!truncation.empty(), "--truncation"},
                                                {sequence_length > 0, "--seq-length"},
                                                {thinking != "none", "--enable-thinking"},
                                                {has_default_system, "--default-system"},
                                                {!variant.empty(), "--variant"},
                                                {!variables.empty(), "--set"},
                                                {!effort.empty(), "--reasoning-effort"},
                                                {keep_thinking, "--keep-thinking"},
                                                {train_on_prompt, "--train-on-prompt"},
                                                {mask_history, "--mask-history"},
                                                {!reward_tokens.empty(), "--reward-tokens"},
                                                {!additional.empty(), "--dataset-additional-keys"}};
  for (const auto& [used, flag] : given) {
    if (!used) continue;
    throw ConfigError("data", fmt::format("expected {} with instruction data only", flag),
                      "--template NAME makes samples of rows");
  }
}

data::KnownRows InstructionFlags::rows(const std::vector<std::string>& inputs) const {
  data::RowsOptions options{.map_keys = map_keys};
  options.inputs.assign(inputs.begin(), inputs.end());
  if (!handler.empty()) {
    if (!format.empty() || !task.empty())
      throw ConfigError("data", "expected --handler-name, or --format and --task, got both");
    const data::Handler known = data::handler(handler);
    options.format = known.format;
    options.task = known.task;
  }
  if (!format.empty()) options.format = data::row_format(format);
  if (!task.empty()) options.task = data::instruction_task(task);
  data::KnownRows rows = data::look_at_rows(options);
  for (const std::string& notice : rows.notices) log::info("data", "{}", notice);
  return rows;
}

data::SampleEncoder InstructionFlags::encoder(std::shared_ptr<const text::Tokenizer> tokenizer,
                                              const std::string& model,
                                              const data::KnownRows& rows) const {
  data::SampleOptions options{.task = rows.task,
                              .plain_text = rows.format == data::RowFormat::kText,
                              .append_eod = append_eod,
                              .neat_pack = neat_pack,
                              .step_marker = step_marker,
                              .reward_tokens = reward_tokens,
                              .additional = additional};
  const bool needs = !options.plain_text && rows.task != data::InstructionTask::kProcessReward;
  if (needs && named_template.empty()) {
    throw ConfigError(
        "data",
        fmt::format("expected --template NAME for {} data, got none", data::name_of(rows.format)),
        "`--template model` takes the chat template of the tokenizer's folder");
  }
  if (named_template != kOwn) options.named_template = named_template;
  if (needs && named_template != kOwn && (!variant.empty() || !variables.empty()))
    throw ConfigError("data", "expected --variant and --set with --template model only");
  options.own_template = {model, variant, read_variables(variables)};
  options.turns.thinking = thinking_of(thinking);
  if (named_template == kOwn && thinking != "none")
    options.own_template.variables["enable_thinking"] = thinking == "true";
  if (has_default_system) options.turns.default_system = default_system;
  options.turns.drop_thinking = !keep_thinking;
  options.turns.reasoning_effort = effort;
  options.labels = {train_on_prompt, mask_history};
  if (sequence_length > 0) options.sequence_length = sequence_length;
  if (!truncation.empty()) options.cut = data::cut_rule(truncation);
  data::SampleEncoder encoder(std::move(tokenizer), std::move(options));
  for (const std::string& warning : encoder.warnings()) log::warn("data", "{}", warning);
  return encoder;
}

data::Packing InstructionFlags::packing() const {
  if (neat_pack && !pack)
    throw ConfigError("data", "expected --neat-pack with --pack, got it alone");
  return neat_pack ? data::Packing::kNeat : pack ? data::Packing::kPlain : data::Packing::kNone;
}

}  // namespace qianli::app
