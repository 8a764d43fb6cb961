#include "qianli/data/instruction/own_template.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/data/instruction/openai_messages.h"

namespace qianli::data {
namespace {

using text::chat::EncodedTurn;
using text::jinja::TextRange;

constexpr std::string_view kThinkEnd = "</think>";

bool is_answer(const OrderedJson& message) {
  return message.is_object() && message.value("role", OrderedJson()) == "assistant";
}

OrderedJson first(const OrderedJson& messages, size_t count) {
  return OrderedJson(messages.begin(), messages.begin() + static_cast<ptrdiff_t>(count));
}

std::string_view content_of(const OrderedJson& message) {
  const auto found = message.find("content");
  if (found == message.end() || !found->is_string()) return {};
  return trim(found->get_ref<const std::string&>());
}

// Behind thoughts and the line feeds that follow them.
size_t behind_thoughts(std::string_view answer, std::string_view content) {
  const size_t thought = answer.rfind(kThinkEnd);
  if (thought == answer.npos || content.find(kThinkEnd) != content.npos) return 0;
  return std::min(answer.find_first_not_of('\n', thought + kThinkEnd.size()), answer.size());
}

// Where an answer stands in the text, given how it looks at the end of a conversation: alike, or
// without the thoughts in front, which many templates drop once another question comes.
std::optional<std::string_view> find_answer(std::string_view rest, std::string_view alone,
                                            std::string_view content) {
  if (rest.starts_with(alone)) return alone;
  for (const size_t begin : {behind_thoughts(alone, {}), alone.find(content)}) {
    if (begin >= alone.size()) continue;  // npos, too
    if (rest.starts_with(alone.substr(begin))) return alone.substr(begin);
  }
  return std::nullopt;
}

// A template that passes over the calls would teach the model to say nothing.
void check_calls(const OrderedJson& message, std::string_view answer) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || !calls->is_array()) return;
  for (const OrderedJson& call : *calls) {
    const OrderedJson& function = call.contains("function") ? call["function"] : call;
    const std::string name = function.is_object() ? function.value("name", "") : "";
    if (answer.find(name) != answer.npos) continue;
    throw DataError("data",
                    fmt::format("the model's chat template does not write the call of '{}'", name),
                    "choose a named template with --template");
  }
}

// Runs of ids outside and inside of answers.
std::vector<EncodedTurn> turns_of(const std::vector<int32_t>& ids,
                                  const std::vector<bool>& inside) {
  std::vector<EncodedTurn> turns;
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool begins = i == 0 || (!inside[i] && inside[i - 1]);
    if (begins) turns.emplace_back().answered = false;
    EncodedTurn& turn = turns.back();
    (inside[i] ? turn.target : turn.source).push_back(ids[i]);
    turn.answered |= inside[i];
  }
  return turns;
}

}  // namespace

OwnTemplate::OwnTemplate(const OwnTemplateOptions& options,
                         std::shared_ptr<const text::Tokenizer> tokenizer)
    : tokenizer_(std::move(tokenizer)),
      files_(text::chat::ModelTemplateFiles::read(
          fs::is_directory(options.model) ? options.model : options.model.parent_path())),
      variables_(options.variables),
      now_(text::chat::local_time_now()) {
  plain_.emplace(files_, options.variant, false);
  with_tools_.emplace(files_, options.variant, true);
  if (files_.tokens.count("eos_token")) eos_ = files_.tokens.at("eos_token");
  for (const int32_t id : tokenizer_->added_tokens()) {
    if (tokenizer_->is_special(id)) special_tokens_.push_back(tokenizer_->token(id));
  }
}

text::jinja::Rendered OwnTemplate::render(const OrderedJson& messages, const OrderedJson& tools,
                                          bool ask) const {
  const auto& chosen = tools.is_array() ? with_tools_ : plain_;
  return chosen->render({.messages = messages,
                         .tools = tools,
                         .documents = nullptr,
                         .add_generation_prompt = ask,
                         .variables = variables_,
                         .now = now_});
}

// Some templates ask for an answer even behind one, so what follows the token that ends an answer
// is none of it.
std::string_view OwnTemplate::without_rest(std::string_view answer,
                                           const OrderedJson& message) const {
  const std::string_view content = content_of(message);
  const size_t begin = answer.find(content, behind_thoughts(answer, content));
  if (!message.contains("tool_calls") && !content.empty() && begin != answer.npos) {
    size_t end = answer.npos, length = 0;
    for (const std::string& token : special_tokens_) {
      const size_t found = answer.find(token, begin + content.size());
      if (found > end || found == answer.npos) continue;
      length = found < end ? token.size() : std::max(length, token.size());
      end = found;
    }
    if (end != answer.npos) return answer.substr(0, end + length);
  }
  const size_t end = eos_.empty() ? answer.npos : answer.rfind(eos_);
  return end == answer.npos ? answer : answer.substr(0, end + eos_.size());
}

TextRange OwnTemplate::answer(const std::string& whole, const OrderedJson& messages, size_t index,
                              const OrderedJson& tools) const {
  const std::string before = render(first(messages, index), tools, true).text;
  const std::string with = render(first(messages, index + 1), tools, false).text;
  std::optional<std::string_view> found;
  if (whole.starts_with(before) && with.starts_with(before)) {
    const auto alone = without_rest(std::string_view(with).substr(before.size()), messages[index]);
    check_calls(messages[index], alone);
    found = find_answer(std::string_view(whole).substr(before.size()), alone,
                        content_of(messages[index]));
  }
  if (found) return {before.size(), before.size() + found->size()};
  throw DataError(
      "data",
      fmt::format("the model's chat template writes the conversation up to message {} in another "
                  "way when more follows, so that its answer cannot be found",
                  index + 1),
      "choose a named template with --template, or train the last answer alone: --mask-history");
}

std::vector<EncodedTurn> OwnTemplate::encode(const OrderedJson& messages, const OrderedJson& tools,
                                             bool last_answer_only) const {
  try {
    return encode_as_spelt(messages, tools, last_answer_only);
  } catch (const DataError&) {
    const OrderedJson other = other_spelling(messages);
    if (other == messages) throw;
    try {
      return encode_as_spelt(other, tools, last_answer_only);
    } catch (const DataError&) {
    }
    throw;
  }
}

std::vector<EncodedTurn> OwnTemplate::encode_as_spelt(const OrderedJson& messages,
                                                      const OrderedJson& tools,
                                                      bool last_answer_only) const {
  const auto rendered = render(messages, tools, false);
  if (rendered.nested_generation) {
    throw DataError("data", "the model's chat template marks answers within macros",
                    "choose a named template with --template");
  }
  std::vector<TextRange> ranges = rendered.generations;
  if (ranges.empty()) {
    for (size_t i = 0; i < messages.size(); ++i) {
      const bool counts = !last_answer_only || i + 1 == messages.size();
      if (counts && is_answer(messages[i]))
        ranges.push_back(answer(rendered.text, messages, i, tools));
    }
  }
  if (ranges.empty()) throw DataError("data", "expected an answer of the assistant, got none");
  if (last_answer_only) ranges = {ranges.back()};
  const auto ids = tokenizer_->encode(rendered.text, false);
  return turns_of(ids, text::chat::tokens_in_ranges(tokenizer_, ids, rendered.text, ranges));
}

std::vector<int32_t> OwnTemplate::whole(const OrderedJson& messages,
                                        const OrderedJson& tools) const {
  return tokenizer_->encode(render(messages, tools, false).text, false);
}

std::vector<int32_t> OwnTemplate::prompt(const OrderedJson& messages,
                                         const OrderedJson& tools) const {
  return tokenizer_->encode(render(messages, tools, true).text, false);
}

OrderedJson OwnTemplate::identity() const {
  OrderedJson json = {{"variables", variables_}, {"tokens", files_.tokens}};
  for (const auto& [name, source] : files_.templates) {
    json["templates"][name] = source.text;
    if (source.text.find("strftime_now") != source.text.npos)
      json["date"] = {now_.tm_year + 1900, now_.tm_mon + 1, now_.tm_mday};
  }
  return json;
}

}  // namespace qianli::data
