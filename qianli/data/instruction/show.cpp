#include "qianli/data/instruction/show.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/text/chat/encode_turns.h"

namespace qianli::data {
namespace {

using text::chat::kIgnored;
using TokenizerPointer = std::shared_ptr<const text::Tokenizer>;

// The text of each token as it stands in a running decode; "" while a character is unfinished.
std::vector<std::string> pieces_of(const TokenizerPointer& tokenizer,
                                   const std::vector<int32_t>& ids) {
  std::vector<std::string> pieces;
  if (!tokenizer) {
    for (const int32_t id : ids) pieces.push_back(fmt::format("{} ", id));
    return pieces;
  }
  text::StreamingDecoder stream(tokenizer);
  for (const int32_t id : ids) pieces.push_back(stream.push(id));
  if (!pieces.empty()) pieces.back() += stream.finish();
  return pieces;
}

// Rows come from strangers, and a terminal obeys what it is sent.
std::string harmless(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool c1 =
        byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (text[i] == '\n' || text[i] == '\t' || (byte >= 0x20 && byte != 0x7F && !c1)) {
      out += text[i];
    } else {
      out += fmt::format("\\x{:02x}", c1 ? static_cast<unsigned char>(text[++i]) : byte);
    }
  }
  return out;
}

class SequenceText {
 public:
  SequenceText(const ShownSequence& sequence, const TokenizerPointer& tokenizer, bool colour)
      : sequence_(sequence),
        tokenizer_(tokenizer),
        colour_(colour),
        pieces_(pieces_of(tokenizer, sequence.ids)) {}

  std::string write() {
    const size_t end = sequence_.ids.size() - padding();
    for (size_t i = 0; i < end; ++i) {
      if (begins_sample(i)) rule(i);
      const bool ends_turn = i > 0 && learnt(i - 1) && !learnt(i) && !begins_sample(i);
      if (ends_turn) line();
      token(i);
    }
    close();
    if (padding() > 0) {
      line();
      text_ += fmt::format("({} tokens of padding)", padding());
    }
    line();
    return std::move(text_);
  }

 private:
  int32_t label(size_t i) const {
    return i < sequence_.labels.size() ? sequence_.labels[i] : kIgnored;
  }
  bool learnt(size_t i) const { return label(i) != kIgnored; }
  bool neat() const {
    const auto& mask = sequence_.mask;
    return !mask.empty() && (mask.back() == 0 || *std::max_element(mask.begin(), mask.end()) > 1);
  }
  bool begins_sample(size_t i) const {
    return neat() && (i == 0 || sequence_.mask[i] != sequence_.mask[i - 1]);
  }
  size_t padding() const {
    const auto& mask = sequence_.mask;
    const auto end = std::find_if(mask.rbegin(), mask.rend(), [](int32_t m) { return m != 0; });
    return static_cast<size_t>(end - mask.rbegin());
  }

  void line() {
    close();
    if (!text_.empty() && text_.back() != '\n') text_ += '\n';
  }
  void rule(size_t i) {
    line();
    text_ += fmt::format("──── sample {}\n", sequence_.mask[i]);
  }
  void close() {
    if (!open_) return;
    text_ += ']';
    open_ = false;
  }

  void token(size_t i) {
    const bool special = tokenizer_ && tokenizer_->is_special(sequence_.ids[i]);
    const std::string piece = harmless(pieces_[i]);
    if (colour_) {
      const char* learnt_style = i % 2 == 0 ? "32" : "92";
      text_ += fmt::format("\033[{}{}m{}\033[0m", learnt(i) ? learnt_style : "2",
                           special ? ";7" : "", piece);
    } else {
      if (learnt(i)) close();
      if (!learnt(i) && !open_) text_ += '[';
      open_ = !learnt(i);
      text_ += piece;
    }
    if (learnt(i) && label(i) != sequence_.ids[i]) {
      const std::string name = tokenizer_ ? tokenizer_->token(label(i)) : "";
      text_ += fmt::format("{{{}}}", name.empty() ? std::to_string(label(i)) : name);
    }
  }

  const ShownSequence& sequence_;
  const TokenizerPointer& tokenizer_;
  bool colour_;
  std::vector<std::string> pieces_;
  std::string text_;
  bool open_ = false;
};

}  // namespace

std::string to_text(const ShownSequence& sequence, const TokenizerPointer& tokenizer, bool colour) {
  return SequenceText(sequence, tokenizer, colour).write();
}

OrderedJson to_json(const ShownSequence& sequence, const TokenizerPointer& tokenizer) {
  OrderedJson json;
  if (!sequence.name.empty()) json["name"] = sequence.name;
  json["ids"] = sequence.ids;
  if (!sequence.labels.empty()) json["labels"] = sequence.labels;
  if (!sequence.mask.empty()) json["attention_mask"] = sequence.mask;
  if (tokenizer) json["pieces"] = pieces_of(tokenizer, sequence.ids);
  return json;
}

std::vector<ShownSequence> sequences_of(const std::vector<std::string>& fields,
                                        const std::vector<std::vector<int32_t>>& values) {
  std::vector<ShownSequence> sequences;
  const auto value_of = [&](const std::string& name) {
    const auto found = std::find(fields.begin(), fields.end(), name);
    return found == fields.end() ? std::vector<int32_t>()
                                 : values[static_cast<size_t>(found - fields.begin())];
  };
  for (const std::string prefix : {"", "chosen_", "rejected_"}) {
    ShownSequence one{prefix.empty() ? "" : prefix.substr(0, prefix.size() - 1),
                      value_of(prefix + "input_ids"), value_of(prefix + "labels"),
                      value_of(prefix + "attention_mask")};
    if (one.ids.empty()) continue;
    // Of prompts the labels are another text.
    if (one.labels.size() != one.ids.size()) one.labels.clear();
    sequences.push_back(std::move(one));
  }
  for (size_t f = 0; f < fields.size(); ++f) {
    const std::string& field = fields[f];
    const bool shown = field.ends_with("input_ids") || field.ends_with("attention_mask") ||
                       (field.ends_with("labels") &&
                        std::any_of(sequences.begin(), sequences.end(),
                                    [&](const auto& one) { return !one.labels.empty(); }));
    if (!shown) sequences.push_back({field, values[f], {}, {}});
  }
  return sequences;
}

}  // namespace qianli::data
