// Bodies of requests, checked: what is wrong is answered with the name of the parameter.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "qianli/serve/backend.h"

namespace qianli::serve {

struct RequestLimits {
  int64_t most_answers = 16;  // n, times prompts
  int64_t most_tokens = 0;    // of max_tokens; 0: the model's context
  int64_t most_messages = 4096;
};

struct CommonRequest {
  std::string model;  // empty: not said
  Work work;          // without its prompt
  int64_t n = 1;
  bool stream = false, include_usage = false;
};

struct CompletionRequest : CommonRequest {
  using Prompt = std::variant<std::string, std::vector<int64_t>>;
  std::vector<Prompt> prompts;
};

struct ChatRequest : CommonRequest {
  OrderedJson messages;   // content is a text or null
  OrderedJson tools;      // a list, or null
  OrderedJson variables;  // of the template
};

// Throw ApiError (400).
CompletionRequest parse_completion(std::string_view body, const ModelCard& card,
                                   const RequestLimits& limits);
ChatRequest parse_chat(std::string_view body, const ModelCard& card, const RequestLimits& limits);

}  // namespace qianli::serve
