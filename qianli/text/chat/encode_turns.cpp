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
  }
  return encoded;
}

TrainingSample TurnEncoder::sample(const std::vector<EncodedTurn>& turns) const {
  TrainingSample sample;
  for (const EncodedTurn& turn : turns) {
    if (turn.target.empty()) continue;
    const size_t begin = sample.ids.size();
    sample.ids.insert(sample.ids.end(), turn.source.begin(), turn.source.end());
    sample.labels.resize(sample.ids.size(), kIgnored);
    // Closes the answer before: predicted from its last token.
    if (efficient_eos_ && begin > 0 && !turn.source.empty()) sample.labels[begin] = *eos_;
    sample.ids.insert(sample.ids.end(), turn.target.begin(), turn.target.end());
    sample.labels.insert(sample.labels.end(), turn.target.begin(), turn.target.end());
  }
  if (efficient_eos_ && !sample.ids.empty()) {
    sample.ids.push_back(*eos_);
    sample.labels.push_back(*eos_);
  }
  return sample;
}

std::string TurnEncoder::bos_text() const {
  return bos_ ? tokenizer_->token(*bos_) : std::string();
}
std::string TurnEncoder::eos_text() const { return tokenizer_->token(*eos_); }

}  // namespace qianli::text::chat
