// Conversations by the chat template that a model's folder brings, as turns of token ids.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qianli/text/chat/encode_turns.h"
#include "qianli/text/chat/model_template.h"

namespace qianli::data {

struct OwnTemplateOptions {
  // Folder of the model, or a file in it.
  fs::path model;
  std::string variant;  // which of several templates
  // Variables of the template: {"enable_thinking": false}.
  OrderedJson variables = OrderedJson::object();
};

// What the assistant says is told by the template's {% generation %} blocks. Where it has none: an
// answer begins where the conversation before it ends when an answer is asked for, and ends behind
// the first special token that follows its content, or (of calls) behind the end of text. What
// stands behind the last answer is left out, as nothing learns from it.
class OwnTemplate {
 public:
  OwnTemplate(const OwnTemplateOptions& options, std::shared_ptr<const text::Tokenizer> tokenizer);

  // Safe to call from many threads. `messages`: OpenAI's. DataError where the template refuses
  // them, or changes earlier turns when later ones come, so that the answers cannot be found.
  std::vector<text::chat::EncodedTurn> encode(const OrderedJson& messages, const OrderedJson& tools,
                                              bool last_answer_only) const;
  // The whole conversation, whatever it is made of.
  std::vector<int32_t> whole(const OrderedJson& messages, const OrderedJson& tools) const;
  // The text of the conversation, asking for an answer.
  std::vector<int32_t> prompt(const OrderedJson& messages, const OrderedJson& tools) const;

  // Everything that decides the ids: the templates' texts, the variables, and the date where a
  // template asks for it.
  OrderedJson identity() const;

 private:
  text::jinja::Rendered render(const OrderedJson& messages, const OrderedJson& tools,
                               bool ask) const;
  std::vector<text::chat::EncodedTurn> encode_as_spelt(const OrderedJson& messages,
                                                       const OrderedJson& tools,
                                                       bool last_answer_only) const;
  std::string_view without_rest(std::string_view answer, const OrderedJson& message) const;
  text::jinja::TextRange answer(const std::string& whole, const OrderedJson& messages, size_t index,
                                const OrderedJson& tools) const;

  std::shared_ptr<const text::Tokenizer> tokenizer_;
  text::chat::ModelTemplateFiles files_;
  std::optional<text::chat::ModelTemplate> plain_, with_tools_;
  OrderedJson variables_;
  std::string eos_;
  std::vector<std::string> special_tokens_;
  std::tm now_;
};

}  // namespace qianli::data
