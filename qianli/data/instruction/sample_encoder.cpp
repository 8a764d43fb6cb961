#include "qianli/data/instruction/sample_encoder.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/data/instruction/legacy.h"
#include "qianli/data/instruction/openai_messages.h"
#include "qianli/text/chat/template_file.h"
#include "qianli/text/chat/truncation.h"

namespace qianli::data {
namespace {

using text::chat::EncodedTurn;
using text::chat::kIgnored;
using text::chat::TemplateClass;
using text::chat::Truncation;

// MindSpeed-LLM's cutoff where no sequence length is given.
constexpr int64_t kCutoff = 100000;

void append(std::vector<int32_t>& to, const std::vector<int32_t>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

SampleEncoder::SampleEncoder(std::shared_ptr<const text::Tokenizer> tokenizer,
                             SampleOptions options)
    : tokenizer_(std::move(tokenizer)), options_(std::move(options)), fields_(fields_of(options_)) {
  check_sample_options(options_);
  if (options_.task == InstructionTask::kProcessReward) {
    step_marker_ = single_id(options_.step_marker, "the marker of steps");
    for (const std::string& token : options_.reward_tokens)
      reward_ids_.push_back(single_id(token, "a reward token"));
    return;
  }
  if (options_.plain_text) return;
  if (options_.legacy != Legacy::kNone) {
    if (options_.legacy == Legacy::kHunyuan) own_.emplace(options_.own_template, tokenizer_);
    return;
  }
  options_.turns.last_answer_only = options_.task == InstructionTask::kPreference;
  if (options_.named_template.empty()) {
    own_.emplace(options_.own_template, tokenizer_);
    return;
  }
  named_ = text::chat::find_template(options_.named_template);
  encoder_.emplace(tokenizer_, *named_);
}

int32_t SampleEncoder::single_id(const std::string& text, const char* what) const {
  const auto ids = tokenizer_->encode(text, false);
  if (ids.size() == 1) return ids[0];
  throw DataError(
      "data", fmt::format("expected {} to be one token, got {} for '{}'", what, ids.size(), text));
}

std::optional<int32_t> SampleEncoder::eos() const {
  return encoder_ ? encoder_->eos() : tokenizer_->eos_id();
}
std::optional<int32_t> SampleEncoder::pad() const {
  return encoder_ ? encoder_->pad() : tokenizer_->pad_id() ? tokenizer_->pad_id() : eos();
}
const std::vector<std::string>& SampleEncoder::warnings() const {
  return encoder_ ? encoder_->warnings() : no_warnings_;
}

OrderedJson SampleEncoder::identity() const {
  const auto& turns = options_.turns;
  OrderedJson json = {
      {"task", name_of(options_.task)},
      {"tokenizer", tokenizer_->fingerprint()},
      {"template", options_.named_template},
      {"thinking", static_cast<int>(turns.thinking)},
      {"default_system", turns.default_system ? OrderedJson(*turns.default_system) : OrderedJson()},
      {"drop_thinking", turns.drop_thinking},
      {"reasoning_effort", turns.reasoning_effort},
      {"train_on_prompt", options_.labels.train_on_prompt},
      {"mask_history", options_.labels.mask_history},
      {"append_eod", options_.append_eod},
      {"sequence_length", options_.sequence_length.value_or(0)},
      {"truncation", name_of(options_.cut)},
      {"neat_pack", options_.neat_pack},
      {"eos", eos().value_or(-1)},
      {"pad", pad().value_or(-1)}};
  if (own_) json["own_template"] = own_->identity();
  if (options_.legacy != Legacy::kNone) json["legacy"] = static_cast<int>(options_.legacy);
  if (named_ && text::chat::is_in_file(options_.named_template))
    json["named_template"] = text::chat::to_json(*named_);
  if (options_.task == InstructionTask::kProcessReward) {
    json["step_marker"] = options_.step_marker;
    json["reward_tokens"] = options_.reward_tokens;
  }
  json["additional"] = options_.additional;
  return json;
}

// With an answer at the end of a conversation that has none; the last turn is an answered one.
std::vector<EncodedTurn> SampleEncoder::turns(const Example& example,
                                              const text::chat::Message* answer,
                                              std::vector<std::string>& warnings) const {
  if (own_) {
    OrderedJson messages = example.own_messages.is_array() ? example.own_messages
                                                           : openai_messages(example.conversation);
    if (answer) messages.push_back(openai_message(*answer));
    const bool last_only = options_.turns.last_answer_only || options_.labels.mask_history;
    auto encoded = own_->encode(messages, example.conversation.tools, last_only);
    if (!encoded.back().answered) encoded.pop_back();  // line feeds behind the last answer
    return encoded;
  }
  text::chat::Turns rendered;
  if (answer) {
    text::chat::Conversation conversation = example.conversation;
    conversation.messages.push_back(*answer);
    rendered = text::chat::render_turns(*named_, conversation, options_.turns);
  } else {
    rendered = text::chat::render_turns(*named_, example.conversation, options_.turns);
  }
  for (std::string& warning : rendered.warnings) warnings.push_back(std::move(warning));
  return encoder_->encode(rendered);
}

bool SampleEncoder::cut_turns(std::vector<EncodedTurn>& turns) const {
  const bool from_last = options_.labels.mask_history;
  const bool by_share = named_ && (named_->kind == TemplateClass::kTemplate ||
                                   named_->kind == TemplateClass::kLlama2);
  const int64_t length = options_.sequence_length.value_or(kCutoff);
  bool cut = false;
  switch (options_.cut) {
    case CutRule::kDrop:
      break;
    case CutRule::kTemplate:
      cut = truncate_turns(turns, by_share ? length : length - 1,
                           by_share ? Truncation::kProportional : Truncation::kTwoSided, from_last);
      break;
    default: {
      // What comes behind the turns needs its place, too.
      const int64_t behind = (encoder_ && encoder_->efficient_eos() ? 1 : 0) + options_.append_eod;
      const auto rule =
          options_.cut == CutRule::kTwoSided ? Truncation::kTwoSided : Truncation::kProportional;
      cut = truncate_turns(turns, std::max<int64_t>(length - 1 - behind, 1), rule, from_last);
    }
  }
  if (!options_.neat_pack) return cut;
  for (EncodedTurn& turn : turns) {
    std::vector<EncodedTurn> one = {std::move(turn)};
    cut |= truncate_turns(one, length - 1, Truncation::kTwoSided, false);
    turn = std::move(one[0]);
  }
  return cut;
}

void SampleEncoder::encode_conversation(const Example& example, Sample& sample) const {
  auto encoded = turns(example, nullptr, sample.warnings);
  sample.cut = cut_turns(encoded);
  const auto closing = encoder_ && encoder_->efficient_eos() ? eos() : std::nullopt;
  auto made = text::chat::training_sample(encoded, closing, options_.labels);
  sample.fields = {std::move(made.ids), std::move(made.labels)};
}

void SampleEncoder::encode_text(const Example& example, Sample& sample) const {
  auto ids = tokenizer_->encode(example.text, true);
  if (ids.empty()) throw DataError("data", "expected a text, got an empty one");
  if (!eos()) throw DataError("data", "expected a tokenizer with an end of text, got one without");
  ids.push_back(*eos());
  const bool cuts = options_.cut == CutRule::kProportional || options_.cut == CutRule::kTwoSided;
  if (cuts) {
    const auto most = static_cast<size_t>(*options_.sequence_length - 1 - options_.append_eod);
    sample.cut = ids.size() > most;
    ids.resize(std::min(ids.size(), most));
  }
  sample.fields = {ids, ids};
}

// One prompt for both answers, that of the chosen one.
void SampleEncoder::encode_pair(const Example& example, Sample& sample) const {
  const auto chosen = turns(example, &*example.chosen, sample.warnings);
  const auto rejected = turns(example, &*example.rejected, sample.warnings);
  std::vector<int32_t> prompt;
  for (size_t i = 0; i < chosen.size(); ++i) {
    append(prompt, chosen[i].source);
    if (i + 1 < chosen.size()) append(prompt, chosen[i].target);
  }
  const auto answer_of = [&](const std::vector<EncodedTurn>& all) {
    std::vector<int32_t> ids = all.back().target;
    if (encoder_ && encoder_->efficient_eos()) ids.push_back(*eos());
    return ids;
  };
  std::vector<int32_t> answers[] = {answer_of(chosen), answer_of(rejected)};
  const bool cuts = options_.cut == CutRule::kProportional || options_.cut == CutRule::kTwoSided;
  if (cuts) {
    const auto longest = static_cast<int64_t>(std::max(answers[0].size(), answers[1].size()));
    const auto stays = text::chat::truncated(
        {static_cast<int64_t>(prompt.size()), longest}, *options_.sequence_length - 1,
        options_.cut == CutRule::kTwoSided ? Truncation::kTwoSided : Truncation::kProportional);
    sample.cut = stays.source < static_cast<int64_t>(prompt.size()) || stays.target < longest;
    prompt.resize(static_cast<size_t>(stays.source));
    for (auto& ids : answers) ids.resize(std::min(ids.size(), static_cast<size_t>(stays.target)));
  }
  for (const auto& answer : answers) {
    std::vector<int32_t> ids = prompt, labels(prompt.size(), kIgnored);
    append(ids, answer);
    append(labels, answer);
    sample.fields.push_back(std::move(ids));
    sample.fields.push_back(std::move(labels));
  }
}

void SampleEncoder::encode_steps(const Example& example, Sample& sample) const {
  auto ids = tokenizer_->encode(example.text, false);
  std::vector<int32_t> labels(ids.size(), kIgnored);
  const auto markers = static_cast<size_t>(std::count(ids.begin(), ids.end(), step_marker_));
  if (markers != example.step_labels.size()) {
    throw DataError("data",
                    fmt::format("expected a label for each of the {} markers '{}', got {}", markers,
                                options_.step_marker, example.step_labels.size()),
                    markers == 0
                        ? "behind a blank it may be other tokens; a special token as marker "
                          "is found everywhere"
                        : "");
  }
  size_t next = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] != step_marker_) continue;
    const std::string& label = example.step_labels[next++];
    const auto& known = options_.reward_tokens;
    const auto found = std::find(known.begin(), known.end(), label);
    if (found != known.end()) {
      labels[i] = reward_ids_[static_cast<size_t>(found - known.begin())];
    } else if (known.empty()) {
      labels[i] = single_id(label, "a label");
    } else {
      throw DataError("data", fmt::format("expected one of the reward tokens '{}', got '{}'",
                                          join(known, "', '"), label));
    }
  }
  sample.fields = {std::move(ids), std::move(labels)};
}

void SampleEncoder::encode_prompt(const Example& example, Sample& sample) const {
  std::vector<int32_t> ids;
  const auto& messages = example.conversation.messages;
  if (own_) {
    OrderedJson all = example.own_messages.is_array() ? example.own_messages
                                                      : openai_messages(example.conversation);
    all.erase(all.size() - 1);
    ids = own_->prompt(all, example.conversation.tools);
  } else {
    const auto encoded = turns(example, nullptr, sample.warnings);
    for (size_t i = 0; i < encoded.size(); ++i) {
      append(ids, encoded[i].source);
      const bool keeps = options_.task == InstructionTask::kPrompts && i + 1 < encoded.size();
      if (keeps) append(ids, encoded[i].target);
    }
  }
  sample.fields.push_back(std::move(ids));
  for (const std::string& key : options_.additional) {
    const std::string* text = key == "labels" ? &messages.back().content : nullptr;
    for (const auto& [column, value] : example.additional) {
      if (column == key) text = &value;
    }
    sample.fields.push_back(tokenizer_->encode(*text, false));
  }
}

Sample SampleEncoder::encode(const Example& example) const {
  Sample sample;
  switch (options_.task) {
    case InstructionTask::kSft:
      if (options_.legacy != Legacy::kNone) {
        sample = encode_legacy(options_.legacy, example, *tokenizer_, own_ ? &*own_ : nullptr);
        break;
      }
      example.conversation.messages.empty() ? encode_text(example, sample)
                                            : encode_conversation(example, sample);
      break;
    case InstructionTask::kPreference:
      encode_pair(example, sample);
      break;
    case InstructionTask::kProcessReward:
      encode_steps(example, sample);
      break;
    default:
      encode_prompt(example, sample);
  }
  if (options_.append_eod) {
    for (auto& field : sample.fields) field.push_back(*eos());
  }
  if (!options_.sequence_length) return sample;
  if (options_.neat_pack && sample.longest() >= *options_.sequence_length) {
    sample.cut = true;
    for (auto& field : sample.fields)
      field.resize(static_cast<size_t>(*options_.sequence_length - 1));
  }
  sample.too_long = sample.longest() >= *options_.sequence_length;
  return sample;
}

}  // namespace qianli::data
