#include "qianli/serve/request.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "qianli/base/strings.h"
#include "qianli/serve/api_error.h"
#include "qianli/serve/fields.h"

namespace qianli::serve {
namespace {

constexpr size_t kMostStops = 16, kLongestStop = 256;
constexpr size_t kMostChoices = 1024, kLongestChoice = 4096;
constexpr size_t kMostBiases = 1024;
constexpr int64_t kMostTopLogProbs = 20;

// {"id": bias}
std::vector<std::pair<int64_t, double>> read_logit_bias(Fields& fields, int64_t vocabulary) {
  const OrderedJson* given = fields.find("logit_bias");
  if (!given) return {};
  if (!given->is_object() || given->size() > kMostBiases) {
    refuse("logit_bias", fmt::format("an object of at most {} token ids", kMostBiases), *given);
  }
  std::vector<std::pair<int64_t, double>> biases;
  for (const auto& [key, value] : given->items()) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= vocabulary)
      refuse("logit_bias", fmt::format("token ids below {}", vocabulary), key);
    if (!value.is_number() || !(std::abs(value.get<double>()) <= 100))
      refuse("logit_bias", "numbers from -100 to 100", value);
    biases.emplace_back(id, value.get<double>());
  }
  return biases;
}

Sampling read_sampling(Fields& fields, const ModelCard& card) {
  Sampling sampling{.temperature = fields.number("temperature", 0, 2),
                    .top_p = fields.number("top_p", 0, 1),
                    .min_p = fields.number("min_p", 0, 1),
                    .repetition_penalty = fields.number("repetition_penalty", 0.01, 10),
                    .top_k = fields.integer("top_k", 0, INT32_MAX)};
  if (const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX))
    sampling.seed = static_cast<uint64_t>(*seed);
  sampling.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0);
  sampling.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0);
  sampling.logit_bias = read_logit_bias(fields, card.vocabulary);
  return sampling;
}

void read_stream(Fields& fields, CommonRequest& request) {
  request.stream = fields.flag("stream");
  const OrderedJson* options = fields.find("stream_options");
  if (!options) return;
  if (!request.stream) {
    throw ApiError(400, "stream_options: expected with stream only", "stream_options");
  }
  if (!options->is_object()) refuse("stream_options", "an object", *options);
  for (const auto& [key, value] : options->items()) {
    if (key != "include_usage" || !value.is_boolean())
      refuse("stream_options", "include_usage, true or false", *options);
    request.include_usage = value.get<bool>();
  }
}

void read_common(Fields& fields, CommonRequest& request, const ModelCard& card,
                 const RequestLimits& limits) {
  if (auto model = fields.text("model")) request.model = *model;
  if (!request.model.empty()) {
    const auto adapter = card.find(request.model);
    if (!adapter) {
      const std::string others = card.adapters.empty() ? ""
                                                       : fmt::format(" or one of its adapters ({})",
                                                                     join(card.adapters, ", "));
      throw ApiError(404, fmt::format("model: expected '{}'{}, got another one", card.id, others),
                     "model", "model_not_found");
    }
    request.work.adapter = *adapter;
  }
  const int64_t most = limits.most_tokens > 0 ? limits.most_tokens : card.context_length;
  Work& work = request.work;
  work.sampling = read_sampling(fields, card);
  work.max_tokens = fields.integer("max_tokens", 1, most);
  work.ignore_eos = fields.flag("ignore_eos");
  work.stop = fields.texts("stop", kMostStops, kLongestStop);
  work.choices = fields.texts("guided_choice", kMostChoices, kLongestChoice);
  request.n = fields.integer("n", 1, limits.most_answers).value_or(1);
  read_stream(fields, request);
  for (const char* key : {"user", "metadata", "store", "service_tier"}) fields.ignore(key);
}

std::vector<int64_t> read_ids(const OrderedJson& list, const ModelCard& card) {
  std::vector<int64_t> ids;
  for (const OrderedJson& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(card.vocabulary))
      refuse("prompt", fmt::format("token ids below {}", card.vocabulary), id);
    ids.push_back(id.get<int64_t>());
  }
  if (ids.empty()) throw ApiError(400, "prompt: expected tokens, got none", "prompt");
  return ids;
}

// A text, a list of texts, a list of ids, or a list of lists of ids.
std::vector<CompletionRequest::Prompt> read_prompts(Fields& fields, const ModelCard& card) {
  const OrderedJson* given = fields.find("prompt");
  if (!given) throw ApiError(400, "prompt: expected a text, got none", "prompt");
  if (given->is_string()) return {given->get<std::string>()};
  if (!given->is_array() || given->empty())
    refuse("prompt", "a text, a list of texts or token ids", *given);
  if (given->front().is_number()) return {read_ids(*given, card)};
  std::vector<CompletionRequest::Prompt> prompts;
  for (const OrderedJson& one : *given) {
    if (one.is_string()) {
      prompts.emplace_back(one.get<std::string>());
    } else if (one.is_array()) {
      prompts.emplace_back(read_ids(one, card));
    } else {
      refuse("prompt", "a list of texts or of lists of token ids", one);
    }
  }
  return prompts;
}

// Parts of a content joined, where all are texts.
OrderedJson joined_content(const OrderedJson& parts, const std::string& param) {
  std::string text;
  for (const OrderedJson& part : parts) {
    const bool fits = part.is_object() && part.contains("type") && part["type"] == "text" &&
                      part.contains("text") && part["text"].is_string();
    if (!fits) refuse(param, "parts of the type text", part);
    text += part["text"].get<std::string>();
  }
  return text;
}

OrderedJson read_message(const OrderedJson& given, size_t index) {
  const std::string param = fmt::format("messages[{}]", index);
  if (!given.is_object()) refuse(param, "an object", given);
  const auto role = given.find("role");
  if (role == given.end() || !role->is_string())
    throw ApiError(400, param + ".role: expected a text", param + ".role");
  static const std::vector<std::string> kRoles{"system", "developer", "user", "assistant", "tool"};
  if (std::ranges::find(kRoles, role->get<std::string>()) == kRoles.end())
    refuse(param + ".role", "system, developer, user, assistant or tool", *role);
  OrderedJson message = given;
  const auto content = message.find("content");
  if (content == message.end()) {
    if (!message.contains("tool_calls"))
      throw ApiError(400, param + ".content: expected a text, got none", param + ".content");
    return message;
  }
  if (content->is_array()) *content = joined_content(*content, param + ".content");
  if (!content->is_string() && !content->is_null())
    refuse(param + ".content", "a text or a list of parts", *content);
  return message;
}

OrderedJson read_messages(Fields& fields, const RequestLimits& limits) {
  const OrderedJson* given = fields.find("messages");
  if (!given) throw ApiError(400, "messages: expected a list, got none", "messages");
  if (!given->is_array() || given->empty() ||
      given->size() > static_cast<size_t>(limits.most_messages)) {
    refuse("messages", fmt::format("a list of 1 to {} messages", limits.most_messages), *given);
  }
  OrderedJson messages = OrderedJson::array();
  for (const OrderedJson& message : *given)
    messages.push_back(read_message(message, messages.size()));
  return messages;
}

void read_log_probs(Fields& fields, Work& work) {
  const bool wanted = fields.flag("logprobs");
  const auto top = fields.integer("top_logprobs", 0, kMostTopLogProbs);
  if (top && !wanted)
    throw ApiError(400, "top_logprobs: expected with logprobs only", "top_logprobs");
  if (wanted) work.top_log_probs = top.value_or(0);
}

}  // namespace

CompletionRequest parse_completion(std::string_view body, const ModelCard& card,
                                   const RequestLimits& limits) {
  Fields fields(body);
  CompletionRequest request;
  read_common(fields, request, card, limits);
  request.prompts = read_prompts(fields, card);
  const auto answers = static_cast<int64_t>(request.prompts.size()) * request.n;
  if (answers > limits.most_answers) {
    throw ApiError(400,
                   fmt::format("prompt: expected at most {} answers (prompts times n), got {}",
                               limits.most_answers, answers),
                   "prompt");
  }
  if (!request.work.max_tokens) request.work.max_tokens = 16;  // as OpenAI's API has it
  request.work.top_log_probs = fields.integer("logprobs", 0, kMostTopLogProbs).value_or(-1);
  fields.expect("echo", {false});
  fields.expect("best_of", {1, request.n});
  fields.expect("suffix", {""});
  fields.finish();
  return request;
}

ChatRequest parse_chat(std::string_view body, const ModelCard& card, const RequestLimits& limits) {
  Fields fields(body);
  ChatRequest request;
  read_common(fields, request, card, limits);
  const int64_t most = limits.most_tokens > 0 ? limits.most_tokens : card.context_length;
  if (const auto tokens = fields.integer("max_completion_tokens", 1, most))
    request.work.max_tokens = tokens;
  if (!request.work.max_tokens && limits.most_tokens > 0)
    request.work.max_tokens = limits.most_tokens;
  request.messages = read_messages(fields, limits);
  read_log_probs(fields, request.work);
  if (const OrderedJson* tools = fields.find("tools")) {
    if (!tools->is_array()) refuse("tools", "a list", *tools);
    if (!tools->empty()) request.tools = *tools;
  }
  fields.expect("tool_choice", {"auto", "none"});
  if (const OrderedJson* choice = fields.find("tool_choice"); choice && *choice == "none")
    request.tools = OrderedJson();
  request.variables = OrderedJson::object();
  if (const OrderedJson* variables = fields.find("chat_template_kwargs")) {
    if (!variables->is_object()) refuse("chat_template_kwargs", "an object", *variables);
    request.variables = *variables;
  }
  fields.expect("response_format", {OrderedJson{{"type", "text"}}});
  fields.ignore("parallel_tool_calls");
  fields.finish();
  return request;
}

}  // namespace qianli::serve
