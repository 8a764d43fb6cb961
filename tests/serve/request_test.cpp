#include "qianli/serve/request.h"

#include <gtest/gtest.h>

#include "qianli/serve/api_error.h"

namespace qianli::serve {
namespace {

const ModelCard kCard{.id = "fake", .created = 5, .context_length = 100, .vocabulary = 256};

ApiError refusal(const std::function<void()>& parse) {
  try {
    parse();
  } catch (const ApiError& error) {
    return error;
  }
  return {0, "nothing was refused"};
}

ApiError chat_refusal(const std::string& more) {
  const std::string body = R"({"messages": [{"role": "user", "content": "x"}])" + more + "}";
  return refusal([&] { parse_chat(body, kCard, {}); });
}

TEST(Request, a_chat_is_read) {
  const auto request = parse_chat(
      R"({"model": "fake", "messages": [{"role": "system", "content": "be kind"},
          {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
          {"role": "assistant", "content": null, "tool_calls": []}],
          "temperature": 0.5, "top_p": 0.9, "top_k": 5, "n": 2, "seed": -3, "stop": "end",
          "max_completion_tokens": 7, "stream": true, "stream_options": {"include_usage": true},
          "logprobs": true, "top_logprobs": 2, "logit_bias": {"17": -100}, "user": "me",
          "presence_penalty": 0.25, "frequency_penalty": null, "tools": [{"type": "function"}],
          "chat_template_kwargs": {"enable_thinking": false}, "response_format": {"type": "text"}})",
      kCard, {});
  EXPECT_EQ(request.messages[1]["content"], "ab");
  EXPECT_EQ(request.messages.size(), 3u);
  EXPECT_EQ(request.n, 2);
  EXPECT_TRUE(request.stream && request.include_usage);
  EXPECT_EQ(request.work.sampling.temperature, 0.5);
  EXPECT_EQ(request.work.sampling.top_k, 5);
  EXPECT_EQ(request.work.sampling.seed, static_cast<uint64_t>(-3));
  EXPECT_EQ(request.work.sampling.presence_penalty, 0.25);
  EXPECT_EQ(request.work.sampling.logit_bias,
            (std::vector<std::pair<int64_t, double>>{{17, -100}}));
  EXPECT_EQ(request.work.max_tokens, 7);
  EXPECT_EQ(request.work.stop, std::vector<std::string>{"end"});
  EXPECT_EQ(request.work.top_log_probs, 2);
  EXPECT_EQ(request.tools.size(), 1u);
  EXPECT_EQ(request.variables["enable_thinking"], false);
}

TEST(Request, the_model_may_be_an_adapter) {
  ModelCard card = kCard;
  card.adapters = {"kind", "rude"};
  const auto adapter_of = [&](const std::string& model) {
    return parse_completion(R"({"prompt": "x", "model": ")" + model + "\"}", card, {}).work.adapter;
  };
  EXPECT_EQ(adapter_of("fake"), kNoAdapter);
  EXPECT_EQ(adapter_of("kind"), 0);
  EXPECT_EQ(adapter_of("rude"), 1);
  EXPECT_EQ(parse_completion(R"({"prompt": "x"})", card, {}).work.adapter, kNoAdapter);
  const ApiError error = refusal([&] { adapter_of("other"); });
  EXPECT_EQ(error.status, 404);
  EXPECT_EQ(error.param, "model");
}

TEST(Request, prompts_have_four_forms) {
  const auto prompts = [](const std::string& prompt) {
    return parse_completion(R"({"prompt": )" + prompt + "}", kCard, {}).prompts;
  };
  EXPECT_EQ(prompts(R"("abc")"), (std::vector<CompletionRequest::Prompt>{"abc"}));
  EXPECT_EQ(prompts(R"(["abc", "d"])").size(), 2u);
  EXPECT_EQ(prompts("[1, 2]"),
            (std::vector<CompletionRequest::Prompt>{std::vector<int64_t>{1, 2}}));
  EXPECT_EQ(prompts("[[1], [2, 3]]").size(), 2u);
  for (const char* bad : {"[]", "[[]]", "[256]", "[-1]", "[1.5]", "{}", "7", "[\"a\", 1]",
                          "[1, \"a\"]", "[18446744073709551615]", "true"}) {
    EXPECT_EQ(refusal([&] { prompts(bad); }).param, "prompt") << bad;
  }
}

TEST(Request, what_is_wrong_is_named) {
  const std::pair<const char*, const char*> cases[] = {
      {R"(, "temperature": -1)", "temperature"},
      {R"(, "temperature": 1e308)", "temperature"},
      {R"(, "temperature": "hot")", "temperature"},
      {R"(, "top_p": 1.1)", "top_p"},
      {R"(, "min_p": -0.1)", "min_p"},
      {R"(, "top_k": 2.5)", "top_k"},
      {R"(, "n": 0)", "n"},
      {R"(, "n": 1000000)", "n"},
      {R"(, "max_tokens": 0)", "max_tokens"},
      {R"(, "max_tokens": -5)", "max_tokens"},
      {R"(, "max_tokens": 99999999999)", "max_tokens"},
      {R"(, "max_tokens": 18446744073709551615)", "max_tokens"},
      {R"(, "max_completion_tokens": "7")", "max_completion_tokens"},
      {R"(, "seed": 1.5)", "seed"},
      {R"(, "stop": [""])", "stop"},
      {R"(, "stop": 5)", "stop"},
      {R"(, "stop": ["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])",
       "stop"},
      {R"(, "stream": 1)", "stream"},
      {R"(, "stream_options": {"include_usage": true})", "stream_options"},
      {R"(, "logprobs": 3)", "logprobs"},
      {R"(, "top_logprobs": 2)", "top_logprobs"},
      {R"(, "logprobs": true, "top_logprobs": 21)", "top_logprobs"},
      {R"(, "logit_bias": {"x": 1})", "logit_bias"},
      {R"(, "logit_bias": {"256": 1})", "logit_bias"},
      {R"(, "logit_bias": {"-1": 1})", "logit_bias"},
      {R"(, "logit_bias": {"1": 101})", "logit_bias"},
      {R"(, "presence_penalty": 2.1)", "presence_penalty"},
      {R"(, "tools": {})", "tools"},
      {R"(, "tool_choice": "required")", "tool_choice"},
      {R"(, "response_format": {"type": "json_object"})", "response_format"},
      {R"(, "guided_choice": [])", ""},  // as good as nothing
      {R"(, "guided_choice": [1])", "guided_choice"},
      {R"(, "functions": [])", "functions"},
  };
  for (const auto& [more, param] : cases) {
    const ApiError error = chat_refusal(more);
    EXPECT_EQ(error.param, param) << more << ": " << error.what();
    EXPECT_EQ(error.status, *param ? 400 : 0) << more;
  }
  EXPECT_EQ(chat_refusal(R"(, "model": "another")").status, 404);
}

TEST(Request, messages_are_looked_at) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "messages"},
      {R"({"messages": []})", "messages"},
      {R"({"messages": "hello"})", "messages"},
      {R"({"messages": [5]})", "messages[0]"},
      {R"({"messages": [{"content": "x"}]})", "messages[0].role"},
      {R"({"messages": [{"role": "king", "content": "x"}]})", "messages[0].role"},
      {R"({"messages": [{"role": "user"}]})", "messages[0].content"},
      {R"({"messages": [{"role": "user", "content": 7}]})", "messages[0].content"},
      {R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})",
       "messages[0].content"},
      {R"({"messages": [{"role": "user", "content": [{"type": 5, "text": "x"}]}]})",
       "messages[0].content"},
  };
  for (const auto& [body, param] : cases)
    EXPECT_EQ(refusal([&, b = body] { parse_chat(b, kCard, {}); }).param, param) << body;
  for (const char* body :
       {"", "{", "[]", "null", "{\"messages\": [}", "\xff", "{\"a\": 1, \"a\": 2}"})
    EXPECT_EQ(refusal([&] { parse_chat(body, kCard, {}); }).status, 400) << body;
  EXPECT_EQ(refusal([&] { parse_chat(std::string(100000, '['), kCard, {}); }).status, 400);
}

}  // namespace
}  // namespace qianli::serve
