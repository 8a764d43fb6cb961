// A conversation as the ids after which a model answers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/infer/model.h"
#include "qianli/text/chat/encode_turns.h"
#include "qianli/text/chat/named_template.h"

namespace qianli::infer {

// By a named template, or by the model's own.
class ChatPrompt {
 public:
  // Throws ConfigError for an unknown name, DataError where the model's template cannot be read. A
  // model without template is refused by ids().
  ChatPrompt(const Model& model, const std::string& named);

  // messages: OpenAI's; tools: a list or null; variables: of the model's own template. Throws
  // DataError for what the template refuses.
  std::vector<int64_t> ids(const OrderedJson& messages, const OrderedJson& tools,
                           const OrderedJson& variables) const;
  // Tokens that end an answer besides the model's own.
  const std::vector<int64_t>& stop_ids() const { return stop_ids_; }
  bool exists() const { return named_ || !files_.templates.empty(); }

 private:
  std::vector<int64_t> by_name(const OrderedJson& messages, const OrderedJson& tools) const;

  text::chat::ModelTemplateFiles files_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::shared_ptr<const text::chat::NamedTemplate> named_;
  std::unique_ptr<text::chat::TurnEncoder> encoder_;  // with named_
  std::optional<text::chat::ModelTemplate> plain_, with_tools_;
  std::vector<int64_t> stop_ids_;
};

}  // namespace qianli::infer
