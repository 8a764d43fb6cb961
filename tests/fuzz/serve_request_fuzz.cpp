// Bodies of requests: read, or refused with 400 or 404.
#include "qianli/serve/request.h"

#include "qianli/serve/api_error.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  using namespace qianli::serve;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const ModelCard card{.id = "model", .created = 0, .context_length = 64, .vocabulary = 100};
  const RequestLimits limits{.most_answers = 4, .most_messages = 8};
  const auto refused = [](const ApiError& error) {
    fuzz::require(error.status == 400 || error.status == 404, "the request is at fault");
    fuzz::require(Json::parse(to_json(error)).contains("error"), "the answer is JSON");
  };
  try {
    const CompletionRequest request = parse_completion(body, card, limits);
    fuzz::require(static_cast<int64_t>(request.prompts.size()) * request.n <= 4, "few answers");
    fuzz::require(*request.work.max_tokens <= 64, "within the context");
  } catch (const ApiError& error) {
    refused(error);
  }
  try {
    const ChatRequest request = parse_chat(body, card, limits);
    for (const OrderedJson& message : request.messages) {
      fuzz::require(message["role"].is_string(), "roles are texts");
      fuzz::require(!message.contains("content") || !message["content"].is_array(),
                    "contents are joined");
    }
  } catch (const ApiError& error) {
    refused(error);
  }
  return 0;
}
