#include "qianli/text/chat/encode_turns.h"

#include <fmt/core.h>

#include "qianli/base/error.h"

namespace qianli::text::chat {

TurnEncoder::TurnEncoder(std::shared_ptr<const Tokenizer> tokenizer, const NamedTemplate& named)
    : tokenizer_(std::move(tokenizer)),
      name_(named.name),
      efficient_eos_(named.efficient_eos),
      bos_(tokenizer_->bos_id()),
      eos_(tokenizer_->eos_id()) {
  if (named.replace_eos) eos_ = required(named.stop_words.at(0));
  if (!eos_) eos_ = tokenizer_->id_of("<|endoftext|>");
  if (!eos_) {
    throw DataError(
        "chat",
        fmt::format("the template '{}' needs an end of text, and the tokenizer names none", name_),
        "set eos_token in tokenizer_config.json");
  }
  // Here rather than at the first of many conversations.
  for (const Slot* slot : {&named.prefix, &named.user, &named.assistant}) {
    for (const Part& part : *slot) {
      if (part.kind == Part::Kind::kToken) required(part.text);
    }
  }
  pad_ = tokenizer_->pad_id() ? tokenizer_->pad_id() : eos_;
  stop_ids_.push_back(*eos_);
  for (const std::string& word : named.stop_words) {
    const auto id = tokenizer_->id_of(word);
    if (!id)
      warnings_.push_back(fmt::format("the tokenizer has no token for the stop word '{}'", word));
    else if (*id != *eos_)
      stop_ids_.push_back(*id);
  }
}

int32_t TurnEncoder::required(const std::string& token) const {
  const auto id = tokenizer_->id_of(token);
  if (id) return *id;
  throw DataError(
      "chat",
      fmt::format("the template '{}' needs the token '{}', which the tokenizer does not have",
                  name_, token),
      "choose the template that belongs to this model");
}

void TurnEncoder::encode(const Slot& slot, std::vector<int32_t>& ids) const {
  for (const Part& part : slot) {
    switch (part.kind) {
      case Part::Kind::kText:
        tokenizer_->encode_to(part.text, false, ids);
        break;
      case Part::Kind::kToken:
        ids.push_back(required(part.text));
        break;
      case Part::Kind::kBos:
        if (bos_) ids.push_back(*bos_);
        break;
      case Part::Kind::kEos:
        ids.push_back(*eos_);
        break;
    }
  }
}

std::vector<EncodedTurn> TurnEncoder::encode(const Turns& turns) const {
  std::vector<EncodedTurn> encoded;
  for (const Turn& turn : turns.turns) {
    encode(turn.source, encoded.emplace_back().source);
    encode(turn.target, encoded.back().target);
    encoded.back().answered = turn.answered;
  }
  return encoded;
}

TrainingSample training_sample(const std::vector<EncodedTurn>& turns,
                               std::optional<int32_t> efficient_eos, const LabelOptions& options) {
  TrainingSample sample;
  const auto append = [&](const std::vector<int32_t>& ids, bool learnt) {
    sample.ids.insert(sample.ids.end(), ids.begin(), ids.end());
    if (learnt)
      sample.labels.insert(sample.labels.end(), ids.begin(), ids.end());
    else
      sample.labels.resize(sample.ids.size(), kIgnored);
  };
  size_t last = turns.size();
  while (last > 0 && !turns[last - 1].answered) --last;
  for (size_t i = 0; i < last; ++i) {
    const size_t begin = sample.ids.size();
    append(turns[i].source, options.train_on_prompt);
    // Closes the answer before: predicted from its last token.
    const bool closes = efficient_eos && i > 0 && !turns[i].source.empty();
    if (closes && !options.train_on_prompt && !options.mask_history)
      sample.labels[begin] = *efficient_eos;
    append(turns[i].target, !options.mask_history || i + 1 == last);
  }
  if (efficient_eos && last > 0) {
    sample.ids.push_back(*efficient_eos);
    sample.labels.push_back(*efficient_eos);
  }
  return sample;
}

TrainingSample TurnEncoder::sample(const std::vector<EncodedTurn>& turns,
                                   const LabelOptions& options) const {
  return training_sample(turns, efficient_eos_ ? eos_ : std::nullopt, options);
}

std::string TurnEncoder::bos_text() const {
  return bos_ ? tokenizer_->token(*bos_) : std::string();
}
std::string TurnEncoder::eos_text() const { return tokenizer_->token(*eos_); }

}  // namespace qianli::text::chat
