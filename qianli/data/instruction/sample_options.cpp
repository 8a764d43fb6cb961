#include "qianli/data/instruction/sample_options.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::data {
namespace {

constexpr std::pair<CutRule, const char*> kCutRules[] = {{CutRule::kTemplate, "template"},
                                                         {CutRule::kProportional, "proportional"},
                                                         {CutRule::kTwoSided, "two-sided"},
                                                         {CutRule::kDrop, "drop"}};

}  // namespace

const char* name_of(CutRule rule) {
  return std::find_if(std::begin(kCutRules), std::end(kCutRules),
                      [&](const auto& entry) { return entry.first == rule; })
      ->second;
}

CutRule cut_rule(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& [rule, text] : kCutRules) {
    if (name == text) return rule;
    known.emplace_back(text);
  }
  throw ConfigError(
      "data",
      fmt::format("expected a rule of truncation, got '{}'{}", name, suggestion(name, known)),
      "known are " + join(known, ", "));
}

std::vector<std::string> fields_of(const SampleOptions& options) {
  switch (options.task) {
    case InstructionTask::kSft:
    case InstructionTask::kProcessReward:
      return {"input_ids", "labels"};
    case InstructionTask::kPreference:
      return {"chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels"};
    case InstructionTask::kPpo:
      return {"input_ids"};
    case InstructionTask::kPrompts:
      break;
  }
  std::vector<std::string> fields = {"input_ids"};
  fields.insert(fields.end(), options.additional.begin(), options.additional.end());
  return fields;
}

void check_sample_options(const SampleOptions& options) {
  const auto need_sft = [&](bool used, const char* flag) {
    if (!used || options.task == InstructionTask::kSft) return;
    throw ConfigError("data", fmt::format("expected {} with the task sft only, got {}", flag,
                                          name_of(options.task)));
  };
  need_sft(options.labels.train_on_prompt, "--train-on-prompt");
  need_sft(options.labels.mask_history, "--mask-history");
  need_sft(options.append_eod, "--append-eod");
  const bool cuts = options.cut == CutRule::kProportional || options.cut == CutRule::kTwoSided;
  const bool pairs = options.task == InstructionTask::kPreference;
  if (!pairs) need_sft(cuts, "--truncation proportional and two-sided");
  if (cuts && !options.sequence_length)
    throw ConfigError("data", "expected --seq-length with --truncation, got none");
  if (options.labels.train_on_prompt && options.labels.mask_history)
    throw ConfigError("data", "expected --train-on-prompt or --mask-history, got both");
  if (options.sequence_length && *options.sequence_length < 2)
    throw ConfigError("data", "expected a sequence length of at least 2");
  const bool moss = options.legacy == Legacy::kMoss || options.legacy == Legacy::kMossMultiTurn;
  if (moss && options.append_eod)
    throw ConfigError("data", "expected --append-eod with other handlers than MOSS's");
  const bool labels = options.labels.train_on_prompt || options.labels.mask_history;
  if (options.legacy != Legacy::kNone && (labels || cuts || options.neat_pack)) {
    throw ConfigError(
        "data",
        "expected a handler with a template for --train-on-prompt, --mask-history, --truncation "
        "and --neat-pack, got one with a frame of its own");
  }
  if (!options.additional.empty() && options.task != InstructionTask::kPrompts)
    throw ConfigError("data", "expected additional keys with the task prompts only");
}

}  // namespace qianli::data
