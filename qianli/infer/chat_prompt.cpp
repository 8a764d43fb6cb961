#include "qianli/infer/chat_prompt.h"

#include "qianli/base/error.h"
#include "qianli/text/chat/template_file.h"
#include "qianli/text/chat/turns.h"

namespace qianli::infer {
namespace chat = text::chat;

ChatPrompt::ChatPrompt(const Model& model, const std::string& named)
    : files_(model.chat_templates()), tokenizer_(model.tokenizer()) {
  if (!named.empty()) {
    named_ = chat::find_template(named);
    encoder_ = std::make_unique<chat::TurnEncoder>(tokenizer_, *named_);
    stop_ids_.assign(encoder_->stop_ids().begin(), encoder_->stop_ids().end());
    return;
  }
  if (files_.templates.empty()) return;
  plain_.emplace(files_, std::string(), /*with_tools=*/false);
  with_tools_.emplace(files_, std::string(), /*with_tools=*/true);
}

std::vector<int64_t> ChatPrompt::ids(const OrderedJson& messages, const OrderedJson& tools,
                                     const OrderedJson& variables) const {
  if (named_) return by_name(messages, tools);
  if (!plain_) {
    throw DataError("chat", "the model has no chat template",
                    "name one with --template, for example --template chatml");
  }
  const chat::ModelTemplate& model = tools.is_array() ? *with_tools_ : *plain_;
  const auto rendered = model.render({.messages = messages,
                                      .tools = tools,
                                      .documents = {},
                                      .add_generation_prompt = true,
                                      .variables = variables,
                                      .now = chat::local_time_now()});
  const auto ids = tokenizer_->encode(rendered.text, /*add_special_tokens=*/false);
  return {ids.begin(), ids.end()};
}

std::vector<int64_t> ChatPrompt::by_name(const OrderedJson& messages,
                                         const OrderedJson& tools) const {
  chat::Conversation conversation = chat::read_conversation(messages, "messages");
  conversation.tools = tools;
  std::vector<int64_t> ids;
  for (const chat::EncodedTurn& turn :
       encoder_->encode(chat::render_turns(*named_, conversation))) {
    ids.insert(ids.end(), turn.source.begin(), turn.source.end());
    if (turn.answered) ids.insert(ids.end(), turn.target.begin(), turn.target.end());
  }
  return ids;
}

}  // namespace qianli::infer
