#include "qianli/data/instruction/own_template.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

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

// Where an answer stands in the whole text, given how it looks at the end of a conversation: alike,
// or without the thoughts in front, which many templates drop once another question comes.
std::optional<std::string_view> find_answer(std::string_view rest, std::string_view alone,
                                            const OrderedJson& message) {
  if (rest.starts_with(alone)) return alone;
  std::vector<size_t> begins;
  if (const size_t thought = alone.rfind(kThinkEnd); thought != alone.npos)
    begins.push_back(alone.find_first_not_of("\n", thought + kThinkEnd.size()));
  if (message.contains("content") && message["content"].is_string()) {
    const auto content = trim(message["content"].get_ref<const std::string&>());
    if (!content.empty()) begins.push_back(alone.find(content));
  }
  for (const size_t begin : begins) {
    if (begin >= alone.size()) continue;  // npos, too
    if (rest.starts_with(alone.substr(begin))) return alone.substr(begin);
  }
  return std::nullopt;
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

TextRange OwnTemplate::answer(const std::string& whole, const OrderedJson& messages, size_t index,
                              const OrderedJson& tools) const {
  const std::string before = render(first(messages, index), tools, true).text;
  const std::string with = render(first(messages, index + 1), tools, false).text;
  const auto found =
      whole.starts_with(before) && with.starts_with(before)
          ? find_answer(std::string_view(whole).substr(before.size()),
                        std::string_view(with).substr(before.size()), messages[index])
          : std::nullopt;
  if (!found) {
    throw DataError(
        "data",
        fmt::format("the model's chat template writes the conversation up to message {} in "
                    "another way when more follows, so that its answer cannot be found",
                    index + 1),
        "choose a named template with --template, or train the last answer alone: --mask-history");
  }
  const size_t end = eos_.empty() ? found->npos : found->rfind(eos_);
  const size_t length = end == found->npos ? found->size() : end + eos_.size();
  return {before.size(), before.size() + length};
}

std::vector<EncodedTurn> OwnTemplate::encode(const OrderedJson& messages, const OrderedJson& tools,
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
