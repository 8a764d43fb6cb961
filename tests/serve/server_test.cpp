// The server over real sockets, with words in the place of a model.
#include "qianli/serve/server.h"

#include <gtest/gtest.h>
#include <httplib.h>

#include "tests/serve/fake_backend.h"

namespace qianli::serve {
namespace {

using testing::FakeBackend;

class Running {
 public:
  explicit Running(ServerOptions options = {}) : server_(backend, with_any_port(options)) {
    thread_ = std::thread([this] { server_.run(); });
    while (!client().Get("/health")) std::this_thread::yield();
  }
  ~Running() { stop(); }
  void stop() {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }
  Server& server() { return server_; }

  httplib::Client client() const {
    httplib::Client client("127.0.0.1", server_.port());
    client.set_read_timeout(20);
    return client;
  }
  httplib::Result post(const std::string& path, const std::string& body) const {
    return client().Post(path, body, "application/json");
  }

  FakeBackend backend;

 private:
  static ServerOptions with_any_port(ServerOptions options) {
    options.port = 0;
    return options;
  }

  Server server_;
  std::thread thread_;
};

const std::string kChat = "/v1/chat/completions", kCompletions = "/v1/completions";
const std::string kHello = R"({"messages": [{"role": "user", "content": "hello"}])";

TEST(Server, answers_a_chat) {
  Running running;
  const auto result =
      running.post(kChat, kHello + R"(, "n": 2, "logprobs": true, "top_logprobs": 1})");
  ASSERT_TRUE(result);
  EXPECT_EQ(result->status, 200);
  const Json answer = Json::parse(result->body);
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["model"], "fake");
  ASSERT_EQ(answer["choices"].size(), 2u);
  EXPECT_EQ(answer["choices"][1]["index"], 1);
  EXPECT_EQ(answer["choices"][1]["message"]["content"], "word0 word1 word2 ");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  const Json& token = answer["choices"][0]["logprobs"]["content"][2];
  EXPECT_EQ(token["token"], "word2 ");
  EXPECT_EQ(token["top_logprobs"][0]["token"], "other");
  EXPECT_EQ(answer["usage"]["completion_tokens"], 6);
  EXPECT_EQ(answer["usage"]["total_tokens"].get<int>(),
            answer["usage"]["prompt_tokens"].get<int>() + 6);
  const auto works = running.backend.works();
  EXPECT_EQ(*works[1].sampling.seed, *works[0].sampling.seed + 1);
}

TEST(Server, answers_completions_of_several_prompts) {
  Running running;
  const auto result =
      running.post(kCompletions, R"({"prompt": ["a", "bc"], "logprobs": 0, "max_tokens": 2})");
  const Json answer = Json::parse(result->body);
  EXPECT_EQ(answer["object"], "text_completion");
  ASSERT_EQ(answer["choices"].size(), 2u);
  EXPECT_EQ(answer["choices"][1]["text"], "word0 word1 ");
  EXPECT_EQ(answer["choices"][1]["logprobs"]["tokens"].size(), 2u);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 3);
}

std::vector<std::string> events(const std::string& body) {
  std::vector<std::string> found;
  for (size_t first = 0; first < body.size();) {
    const size_t end = body.find("\n\n", first);
    EXPECT_TRUE(body.substr(first, 6) == "data: ") << body;
    found.push_back(body.substr(first + 6, end - first - 6));
    first = end + 2;
  }
  return found;
}

TEST(Server, streams_pieces_as_events) {
  Running running;
  const auto result = running.post(
      kChat, kHello + R"(, "stream": true, "stream_options": {"include_usage": true}})");
  EXPECT_EQ(result->get_header_value("Content-Type"), "text/event-stream");
  const auto found = events(result->body);
  ASSERT_GE(found.size(), 6u);
  EXPECT_EQ(found.back(), "[DONE]");
  EXPECT_EQ(Json::parse(found[0])["choices"][0]["delta"]["role"], "assistant");
  std::string text;
  for (size_t i = 1; i + 2 < found.size(); ++i)
    text += Json::parse(found[i])["choices"][0]["delta"].value("content", "");
  EXPECT_EQ(text, "word0 word1 word2 ");
  EXPECT_EQ(Json::parse(found[found.size() - 3])["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(Json::parse(found[found.size() - 2])["usage"]["completion_tokens"], 3);
}

TEST(Server, refuses_with_error_objects) {
  Running running({.most_body_bytes = 5000});
  const auto error = [&](const std::string& path, const std::string& body, int status) {
    const auto result = running.post(path, body);
    EXPECT_EQ(result->status, status) << result->body;
    return Json::parse(result->body)["error"];
  };
  EXPECT_EQ(error(kChat, "{", 400)["type"], "invalid_request_error");
  EXPECT_EQ(error(kChat, kHello + R"(, "temperature": -1})", 400)["param"], "temperature");
  EXPECT_EQ(error(kChat, kHello + R"(, "model": "x"})", 404)["code"], "model_not_found");
  EXPECT_TRUE(error(kCompletions, R"({"prompt": "unencodable"})", 400)["param"].is_null());
  EXPECT_FALSE(error("/v1/nothing", "{}", 404)["message"].empty());
  EXPECT_FALSE(error(kChat, std::string(6000, ' '), 413)["message"].empty());
  running.backend.fail_with("expected finite logits");
  EXPECT_EQ(error(kChat, kHello + "}", 500)["type"], "server_error");
}

TEST(Server, asks_for_its_key) {
  Running running({.api_key = "secret"});
  auto client = running.client();
  EXPECT_EQ(client.Get("/v1/models")->status, 401);
  EXPECT_EQ(client.Get("/metrics")->status, 401);
  EXPECT_EQ(client.Get("/health")->status, 200);
  EXPECT_EQ(client.Get("/v1/models", {{"Authorization", "Bearer secre"}})->status, 401);
  EXPECT_EQ(client.Get("/v1/models", {{"Authorization", "Bearer secretx"}})->status, 401);
  const auto models = client.Get("/v1/models", {{"Authorization", "Bearer secret"}});
  EXPECT_EQ(models->status, 200);
  EXPECT_EQ(Json::parse(models->body)["data"][0]["id"], "fake");
}

TEST(Server, says_no_where_too_much_is_under_way) {
  Running running({.most_texts = 2});
  running.backend.hold();
  std::thread first([&] { running.post(kChat, kHello + R"(, "n": 2})"); });
  while (running.backend.works().size() < 2) std::this_thread::yield();
  const auto refused = running.post(kChat, kHello + "}");
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(refused->get_header_value("Retry-After"), "1");
  EXPECT_EQ(running.post(kChat, kHello + R"(, "n": 3})")->status, 429);
  running.backend.let_go();
  first.join();
  EXPECT_EQ(running.post(kChat, kHello + R"(, "n": 2})")->status, 200);
}

TEST(Server, gives_up_on_clients_that_leave) {
  Running running;
  running.backend.hold();
  for (const std::string more : {"", R"(, "stream": true)"}) {
    auto client = running.client();
    std::thread asking([&] { client.Post(kChat, kHello + more + "}", "application/json"); });
    const size_t before = running.backend.works().size();
    while (running.backend.works().size() == before) std::this_thread::yield();
    client.stop();
    asking.join();
    EXPECT_GE(running.backend.wait_for_cancelled(more.empty() ? 1 : 2), more.empty() ? 1 : 2);
  }
}

TEST(Server, answers_what_is_under_way_when_it_is_stopped) {
  Running running;
  running.backend.hold();
  std::string body;
  std::thread asking([&] { body = running.post(kChat, kHello + "}")->body; });
  while (running.backend.works().empty()) std::this_thread::yield();
  running.server().stop();
  running.backend.let_go();
  running.stop();
  asking.join();
  EXPECT_EQ(Json::parse(body)["choices"][0]["message"]["content"], "word0 word1 word2 ");
}

TEST(Server, waits_no_longer_than_it_was_told) {
  Running running({.drain_time = std::chrono::seconds(0)});
  running.backend.hold();
  int status = 0;
  std::thread asking([&] { status = running.post(kChat, kHello + "}")->status; });
  while (running.backend.works().empty()) std::this_thread::yield();
  running.stop();
  asking.join();
  EXPECT_EQ(status, 503);
}

TEST(Server, has_a_page_and_numbers) {
  Running running;
  const auto page = running.client().Get("/");
  EXPECT_NE(page->body.find("<title>Qianli</title>"), std::string::npos);
  EXPECT_EQ(page->body.find("innerHTML"), std::string::npos);
  EXPECT_NE(page->get_header_value("Content-Security-Policy").find("default-src 'none'"),
            std::string::npos);
  running.post(kChat, kHello + "}");
  const std::string numbers = running.client().Get("/metrics")->body;
  EXPECT_NE(
      numbers.find("qianli_requests_total{endpoint=\"/v1/chat/completions\",status=\"200\"} 1\n"),
      std::string::npos)
      << numbers;
  EXPECT_NE(numbers.find("\nqianli_generated_tokens_total 17\n"), std::string::npos) << numbers;
}

}  // namespace
}  // namespace qianli::serve
