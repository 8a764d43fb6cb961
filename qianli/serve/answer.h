// Answers in the words of OpenAI's API.
#pragma once

#include <string>
#include <vector>

#include "qianli/serve/backend.h"

namespace qianli::serve {

enum class Endpoint { kCompletions, kChat };

// What all parts of an answer share.
struct AnswerHead {
  Endpoint endpoint;
  std::string id, model;
  int64_t created;
};
AnswerHead make_head(Endpoint endpoint, const std::string& model);

// One of an answer's n texts, put together from its pieces.
struct Choice {
  std::string text;
  std::vector<TokenText> tokens;
  Finish finish;

  void add(Piece piece);
};

struct Usage {
  int64_t prompt_tokens = 0, cached_tokens = 0, new_tokens = 0;
  // Prompts that several choices share count once: `prompts` of them, `n` choices each.
  static Usage of(const std::vector<Finish>& finishes, int64_t n);
};

std::string whole_answer(const AnswerHead& head, const std::vector<Choice>& choices, int64_t n,
                         bool log_probs);

// Events of a stream, "data: {...}\n\n".
std::string first_event(const AnswerHead& head, size_t index);  // of a chat: who speaks
std::string piece_event(const AnswerHead& head, size_t index, const Piece& piece, bool log_probs);
std::string usage_event(const AnswerHead& head, const Usage& usage);
std::string error_event(const std::string& error_json);
inline constexpr const char* kLastEvent = "data: [DONE]\n\n";

// The model, and its adapters as models whose parent it is.
std::string model_list(const ModelCard& card);
std::string model_object(const ModelCard& card, int64_t adapter);

}  // namespace qianli::serve
