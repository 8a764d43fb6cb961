#include "apps/qianli/instruction_options.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>

#include "apps/qianli/template_options.h"
#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/strings.h"
#include "qianli/config/field.h"
#include "qianli/data/instruction/dataset_info.h"
#include "qianli/text/chat/template_file.h"

namespace qianli::app {
namespace {

constexpr const char* kRows = "Instruction data";
constexpr const char* kMixing = "Instruction data: several data sets";
constexpr const char* kListed = "LlamaFactoryInstructionHandler";
constexpr const char* kSamples = "Instruction data: samples";

// "train_on_prompt" as "--train-on-prompt".
std::string flag_of(const config::Option& option) {
  std::string flag = "--" + std::string(option.key);
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

// With the name that MindSpeed-LLM has for it.
std::string names_of(const config::Option& option) {
  const std::string flag = flag_of(option);
  return option.flag.empty() || option.flag == flag ? flag
                                                    : fmt::format("{},{}", flag, option.flag);
}

CLI::Option* add_option(CLI::App& command, const config::Field& field) {
  const std::string names = names_of(field.option), help(field.option.help);
  if (bool* const* value = std::get_if<bool*>(&field.value))
    return command.add_flag(names, **value, help);
  if (std::string* const* value = std::get_if<std::string*>(&field.value))
    return command.add_option(names, **value, help);
  auto* value = std::get<std::optional<std::string>*>(field.value);
  return command.add_option_function<std::string>(
      names, [value](const std::string& text) { *value = text; }, help);
}

void add_configured(CLI::App& command, config::InstructionConfig& config) {
  for (const config::Field& field : config::fields_of(config).fields) {
    CLI::Option* option = add_option(command, field)->group(kRows);
    const auto& choices = field.option.choices;
    if (!choices.empty())
      option->check(CLI::IsMember(std::vector<std::string>(choices.begin(), choices.end())));
  }
}

bool is_given(const config::Field& field, const config::Field& unset) {
  if (bool* const* value = std::get_if<bool*>(&field.value)) return **value;
  if (std::string* const* value = std::get_if<std::string*>(&field.value))
    return **value != *std::get<std::string*>(unset.value);
  return std::get<std::optional<std::string>*>(field.value)->has_value();
}

}  // namespace

void InstructionFlags::add_to(CLI::App& command) {
  add_configured(command, config);
  command
      .add_option("--task", task,
                  "sft, preference, process-reward, ppo or prompts [as the rows look]")
      ->group(kRows);
  command
      .add_option("--prompt-type-path", template_file,
                  "File of templates, as MindSpeed-LLM's templates.json, that --template names one "
                  "of")
      ->group(kRows);
  command.add_option("--set", variables, "Of --template model: NAME=VALUE for its variables")
      ->group(kRows);
  command
      .add_option("--dataset-additional-keys", additional,
                  "Of prompts: columns kept; labels is the answer")
      ->group(kRows);
  command.add_option("--placeholder-token", step_marker, "Of process rewards: ends a step [ки]")
      ->group(kRows);
  command.add_option("--reward-tokens", reward_tokens, "Of process rewards: the labels")
      ->group(kRows);
  command
      .add_option(
          "--dataset-dir", dataset_folder,
          "With --handler-name LlamaFactoryInstructionHandler: folder of dataset_info.json, "
          "whose data sets the inputs name")
      ->capture_default_str()
      ->group(kMixing);
  command.add_option("--max-samples", max_rows, "Only the first rows of each data set")
      ->check(CLI::PositiveNumber)
      ->group(kMixing);
  command
      .add_option("--seq-length", sequence_length,
                  "Tokens of a training sequence; samples as long or longer are left out")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 24))
      ->group(kSamples);
  command.add_flag("--pack", pack, "Put several samples into a sequence")->group(kSamples);
  command
      .add_flag("--neat-pack", neat_pack, "With --pack: number the samples in the attention mask")
      ->group(kSamples);
  command.add_flag("--append-eod", append_eod, "One more end of text behind each sample")
      ->group(kSamples);
}

void InstructionFlags::add_mixing_to(CLI::App& command) {
  command
      .add_option("--mix-strategy", mix_strategy,
                  "Data sets one behind the other (concat), or by turns until the first "
                  "(interleave_under) or the last (interleave_over) is used up")
      ->capture_default_str()
      ->group(kMixing);
  command
      .add_option("--interleave-probs", probabilities,
                  "How often each set is drawn from, as 0.3,0.7 [by turns]")
      ->delimiter(',')
      ->group(kMixing);
  command.add_option("--seed", mix_seed, "Of these draws")->capture_default_str()->group(kMixing);
}

bool InstructionFlags::asked() const {
  return !config.chat_template.empty() || !config.format.empty() || !task.empty() ||
         !config.handler_name.empty() || !config.map_keys.empty() || !template_file.empty() ||
         pack || neat_pack;
}

void InstructionFlags::check_unasked() const {
  const auto refuse = [](bool used, const std::string& flag) {
    if (!used) return;
    throw ConfigError("data", fmt::format("expected {} with instruction data only", flag),
                      "--template NAME makes samples of rows");
  };
  config::InstructionConfig given = config, unset;
  const auto fields = config::fields_of(given).fields, defaults = config::fields_of(unset).fields;
  for (size_t i = 0; i < fields.size(); ++i)
    refuse(is_given(fields[i], defaults[i]), flag_of(fields[i].option));
  refuse(sequence_length > 0, "--seq-length");
  refuse(!variables.empty(), "--set");
  refuse(!reward_tokens.empty(), "--reward-tokens");
  refuse(!additional.empty(), "--dataset-additional-keys");
  refuse(pack, "--pack");
  refuse(neat_pack, "--neat-pack");
  refuse(!template_file.empty(), "--prompt-type-path");
  refuse(max_rows > 0, "--max-samples");
  refuse(!probabilities.empty(), "--interleave-probs");
  refuse(mix_strategy != "concat", "--mix-strategy");
}

bool InstructionFlags::lists_sets() const { return config.handler_name == kListed; }

std::vector<data::KnownRows> InstructionFlags::sets(const std::vector<std::string>& inputs) const {
  std::vector<data::KnownRows> sets;
  if (lists_sets()) {
    if (!config.format.empty() || !task.empty() || !config.map_keys.empty())
      throw ConfigError("data",
                        "expected format, task and columns in dataset_info.json, got them "
                        "as options, too");
    std::vector<std::string> names;
    for (const std::string& input : inputs) {
      for (const std::string& name : split(input, ',')) names.emplace_back(trim(name));
    }
    sets = data::listed_rows(dataset_folder, names);
  } else {
    sets = {
        data::configured_rows(config, task, std::vector<fs::path>(inputs.begin(), inputs.end()))};
  }
  for (data::KnownRows& rows : sets) {
    if (max_rows > 0) rows.max_rows = std::min(max_rows, rows.max_rows.value_or(max_rows));
    for (const std::string& notice : rows.notices) log::info("data", "{}", notice);
  }
  return sets;
}

data::Mixing InstructionFlags::mixing(size_t num_sets) const {
  data::Mixing mixing{.strategy = data::mix_strategy(mix_strategy), .seed = mix_seed};
  for (const std::string& text : probabilities) {
    double share = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), share);
    if (error != std::errc() || end != text.data() + text.size())
      throw ConfigError("data",
                        fmt::format("expected numbers as --interleave-probs, got '{}'", text));
    mixing.probabilities.push_back(share);
  }
  data::check_mixing(mixing, num_sets);
  return mixing;
}

data::SampleEncoder InstructionFlags::encoder(std::shared_ptr<const text::Tokenizer> tokenizer,
                                              const std::string& model,
                                              const data::KnownRows& rows) const {
  data::SampleOptions options{.append_eod = append_eod,
                              .neat_pack = neat_pack,
                              .step_marker = step_marker,
                              .reward_tokens = reward_tokens,
                              .additional = additional};
  if (sequence_length > 0) options.sequence_length = sequence_length;
  config::InstructionConfig wanted = config;
  if (!template_file.empty()) {
    if (config.chat_template.empty())
      throw ConfigError("data", "expected --template NAME with --prompt-type-path, got none");
    wanted.chat_template = fmt::format("{}:{}", template_file, config.chat_template);
    if (!text::chat::is_in_file(wanted.chat_template)) {
      throw ConfigError("data", fmt::format("expected a .json file as --prompt-type-path, got '{}'",
                                            template_file));
    }
  }
  if (!variables.empty()) {
    if (!wanted.template_variables.empty())
      throw ConfigError("data", "expected --set or --template-variables, got both");
    wanted.template_variables = read_variables(variables).dump();
  }
  data::SampleEncoder encoder =
      data::configured_encoder(wanted, rows, std::move(tokenizer), model, std::move(options));
  for (const std::string& warning : encoder.warnings()) log::warn("data", "{}", warning);
  return encoder;
}

data::Packing InstructionFlags::packing() const {
  if (neat_pack && !pack)
    throw ConfigError("data", "expected --neat-pack with --pack, got it alone");
  return neat_pack ? data::Packing::kNeat : pack ? data::Packing::kPlain : data::Packing::kNone;
}

}  // namespace qianli::app
