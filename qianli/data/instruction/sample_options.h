// How samples are made of examples.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qianli/data/instruction/own_template.h"
#include "qianli/data/instruction/row_format.h"
#include "qianli/text/chat/encode_turns.h"
#include "qianli/text/chat/turns.h"

namespace qianli::data {

// What happens to samples that are longer than the sequences of training.
enum class CutRule {
  // As MindSpeed-LLM: by the template's class, to the sequence length or one less, of
  // conversations;
  // all else is dropped where too long. Samples of a sequence's length are dropped in the end, and
  // with most templates these are all that were cut.
  kTemplate,
  kProportional,  // so that the sample stays
  kTwoSided,      // so that the sample stays
  kDrop,          // nothing is cut
};

struct SampleOptions {
  InstructionTask task = InstructionTask::kSft;
  // Rows of plain text: no template.
  bool plain_text = false;
  // Handlers with a frame of their own: no template, but Hunyuan's takes the model's.
  Legacy legacy = Legacy::kNone;
  // Of the named templates, or "FILE.json:NAME" (template_file.h); "": the model's own.
  std::string named_template;
  OwnTemplateOptions own_template;
  text::chat::TurnOptions turns;  // last_answer_only follows the task
  text::chat::LabelOptions labels;
  bool append_eod = false;
  std::optional<int64_t> sequence_length;
  CutRule cut = CutRule::kTemplate;
  // Too long samples of neatly packed data are cut to what a pack can hold.
  bool neat_pack = false;
  std::string step_marker = "ки";  // of process rewards
  std::vector<std::string> reward_tokens;
  std::vector<std::string> additional;
};

const char* name_of(CutRule rule);
CutRule cut_rule(const std::string& name);  // ConfigError with a suggestion

// Names of the sequences of a sample: "input_ids", "labels", ... The attention mask of ones is not
// among them.
std::vector<std::string> fields_of(const SampleOptions& options);
// ConfigError for options that do not fit the task or each other.
void check_sample_options(const SampleOptions& options);

}  // namespace qianli::data
