#include "qianli/serve/answer.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <random>

namespace qianli::serve {
namespace {

std::string dump(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

std::string random_id() {
  static thread_local std::mt19937_64 generator{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", generator(), generator());
}

OrderedJson bytes_of(const std::string& text) {
  OrderedJson bytes = OrderedJson::array();
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

OrderedJson chat_token(const std::string& text, double log_prob) {
  return {{"token", text}, {"logprob", log_prob}, {"bytes", bytes_of(text)}};
}

OrderedJson chat_log_probs(const std::vector<TokenText>& tokens) {
  OrderedJson content = OrderedJson::array();
  for (const TokenText& token : tokens) {
    OrderedJson entry = chat_token(token.text, token.log_prob);
    entry["top_logprobs"] = OrderedJson::array();
    for (const auto& [text, log_prob] : token.top)
      entry["top_logprobs"].push_back(chat_token(text, log_prob));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

OrderedJson completion_log_probs(const std::vector<TokenText>& tokens) {
  OrderedJson texts = OrderedJson::array(), log_probs = texts, tops = texts;
  for (const TokenText& token : tokens) {
    texts.push_back(token.text);
    log_probs.push_back(token.log_prob);
    OrderedJson top = OrderedJson::object();
    for (const auto& [text, log_prob] : token.top) top[text] = log_prob;
    tops.push_back(std::move(top));
  }
  return {{"tokens", texts}, {"token_logprobs", log_probs}, {"top_logprobs", tops}};
}

OrderedJson log_probs_of(Endpoint endpoint, const std::vector<TokenText>& tokens, bool wanted) {
  if (!wanted) return {};
  return endpoint == Endpoint::kChat ? chat_log_probs(tokens) : completion_log_probs(tokens);
}

OrderedJson to_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.new_tokens},
          {"total_tokens", usage.prompt_tokens + usage.new_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

OrderedJson head_json(const AnswerHead& head, bool streamed) {
  const bool chat = head.endpoint == Endpoint::kChat;
  const char* object =
      !chat ? "text_completion" : (streamed ? "chat.completion.chunk" : "chat.completion");
  return {{"id", head.id}, {"object", object}, {"created", head.created}, {"model", head.model}};
}

std::string event(const OrderedJson& json) { return "data: " + dump(json) + "\n\n"; }

OrderedJson card_json(const ModelCard& card, int64_t adapter) {
  OrderedJson json{{"id", card.name(adapter)},
                   {"object", "model"},
                   {"created", card.created},
                   {"owned_by", "qianli"},
                   {"max_model_len", card.context_length}};
  if (adapter != kNoAdapter) json["parent"] = card.id;
  return json;
}

}  // namespace

AnswerHead make_head(Endpoint endpoint, const std::string& model) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return {.endpoint = endpoint,
          .id = (endpoint == Endpoint::kChat ? "chatcmpl-" : "cmpl-") + random_id(),
          .model = model,
          .created = std::chrono::duration_cast<std::chrono::seconds>(now).count()};
}

void Choice::add(Piece piece) {
  text += piece.text;
  std::move(piece.tokens.begin(), piece.tokens.end(), std::back_inserter(tokens));
  if (piece.finish) finish = std::move(*piece.finish);
}

Usage Usage::of(const std::vector<Finish>& finishes, int64_t n) {
  Usage usage;
  for (size_t i = 0; i < finishes.size(); ++i) {
    usage.new_tokens += finishes[i].new_tokens;
    if (i % static_cast<size_t>(n) != 0) continue;
    usage.prompt_tokens += finishes[i].prompt_tokens;
    usage.cached_tokens += finishes[i].cached_tokens;
  }
  return usage;
}

std::string whole_answer(const AnswerHead& head, const std::vector<Choice>& choices, int64_t n,
                         bool log_probs) {
  OrderedJson answer = head_json(head, /*streamed=*/false);
  answer["choices"] = OrderedJson::array();
  std::vector<Finish> finishes;
  for (const Choice& choice : choices) {
    OrderedJson entry{{"index", answer["choices"].size()}};
    if (head.endpoint == Endpoint::kChat) {
      entry["message"] = {{"role", "assistant"}, {"content", choice.text}};
    } else {
      entry["text"] = choice.text;
    }
    entry["logprobs"] = log_probs_of(head.endpoint, choice.tokens, log_probs);
    entry["finish_reason"] = choice.finish.reason;
    answer["choices"].push_back(std::move(entry));
    finishes.push_back(choice.finish);
  }
  answer["usage"] = to_json(Usage::of(finishes, n));
  return dump(answer);
}

std::string first_event(const AnswerHead& head, size_t index) {
  OrderedJson chunk = head_json(head, /*streamed=*/true);
  chunk["choices"] = OrderedJson::array({{{"index", index},
                                          {"delta", {{"role", "assistant"}, {"content", ""}}},
                                          {"finish_reason", nullptr}}});
  return event(chunk);
}

std::string piece_event(const AnswerHead& head, size_t index, const Piece& piece, bool log_probs) {
  OrderedJson chunk = head_json(head, /*streamed=*/true);
  OrderedJson entry{{"index", index}};
  if (head.endpoint == Endpoint::kChat) {
    entry["delta"] = OrderedJson::object();
    if (!piece.text.empty()) entry["delta"]["content"] = piece.text;
  } else {
    entry["text"] = piece.text;
  }
  entry["logprobs"] = log_probs_of(head.endpoint, piece.tokens, log_probs);
  entry["finish_reason"] = piece.finish ? OrderedJson(piece.finish->reason) : OrderedJson();
  chunk["choices"] = OrderedJson::array({std::move(entry)});
  return event(chunk);
}

std::string usage_event(const AnswerHead& head, const Usage& usage) {
  OrderedJson chunk = head_json(head, /*streamed=*/true);
  chunk["choices"] = OrderedJson::array();
  chunk["usage"] = to_json(usage);
  return event(chunk);
}

std::string error_event(const std::string& error_json) { return "data: " + error_json + "\n\n"; }

std::string model_list(const ModelCard& card) {
  OrderedJson data = OrderedJson::array();
  for (int64_t adapter = kNoAdapter; adapter < static_cast<int64_t>(card.adapters.size());
       ++adapter)
    data.push_back(card_json(card, adapter));
  return dump({{"object", "list"}, {"data", std::move(data)}});
}

std::string model_object(const ModelCard& card, int64_t adapter) {
  return dump(card_json(card, adapter));
}

std::optional<int64_t> ModelCard::find(const std::string& name) const {
  if (name == id) return kNoAdapter;
  const auto place = std::ranges::find(adapters, name);
  if (place == adapters.end()) return std::nullopt;
  return place - adapters.begin();
}

}  // namespace qianli::serve
