// The server as its operator starts and stops it.
#include <httplib.h>
#include <signal.h>

#include <thread>

#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

using ServeTest = Workshop;

int port_in(const std::string& text) {
  const size_t colon = text.rfind(':');
  return text.ends_with("/\n") ? std::stoi(text.substr(colon + 1)) : 0;
}

TEST_F(ServeTest, AnswersWhatGenerateSaysAndEndsOnSigterm) {
  QIANLI_REQUIRE_ENGINE();
  const fs::path model = trained("run");
  const Result generated =
      qianli({"generate", model, "--prompt", "the cat", "-n", "12", "--greedy", "--json"});
  expect_success(generated);
  const std::string expected = Json::parse(generated.out)["text"];

  RunOptions how = options();
  how.standard_output = path("url");
  how.environment["QIANLI_API_KEY"] = "key";
  Program server({"serve", model, "--port", "0", "--name", "tiny", "--template", "default"}, how);
  ASSERT_TRUE(server.wait_for([&] {
    return fs::exists(path("url")) && port_in(read_text(path("url"))) > 0;
  })) << server.finish().err;
  const int port = port_in(read_text(path("url")));
  httplib::Client client("127.0.0.1", port);
  client.set_read_timeout(60);
  EXPECT_EQ(client.Get("/v1/models")->status, 401);
  client.set_default_headers({{"Authorization", "Bearer key"}});
  const std::string body =
      R"({"model": "tiny", "prompt": "the cat", "max_tokens": 12, "temperature": 0})";
  std::vector<std::thread> askers;
  for (int i = 0; i < 4; ++i) {
    askers.emplace_back([&] {
      httplib::Client own("127.0.0.1", port);
      own.set_read_timeout(60);
      const auto answer =
          own.Post("/v1/completions", {{"Authorization", "Bearer key"}}, body, "application/json");
      EXPECT_EQ(Json::parse(answer->body)["choices"][0]["text"], expected);
    });
  }
  for (auto& asker : askers) asker.join();
  const auto chat = client.Post(
      "/v1/chat/completions",
      R"({"messages": [{"role": "user", "content": "the cat"}], "max_tokens": 5, "logprobs": true})",
      "application/json");
  EXPECT_EQ(chat->status, 200) << chat->body;
  EXPECT_EQ(Json::parse(chat->body)["choices"][0]["logprobs"]["content"].size(), 5u);
  const auto refused = client.Post("/v1/completions", R"({"prompt": "x", "max_tokens": 100000})",
                                   "application/json");
  EXPECT_EQ(refused->status, 400);
  EXPECT_NE(client.Get("/metrics")->body.find("qianli_generated_tokens_total 53"),
            std::string::npos);
  server.send(SIGTERM);
  const Result result = server.finish();
  EXPECT_EQ(result.code, 0) << result.err;
}

TEST_F(ServeTest, RefusesToBeOpenToAnyoneUnasked) {
  expect_failure(qianli({"serve", "model", "--host", "0.0.0.0"}), 2,
                 {"--api-key", "--allow-anyone"});
  QIANLI_REQUIRE_ENGINE();
  expect_failure(qianli({"serve", "absent"}), 2, {"absent"});
}

}  // namespace
}  // namespace qianli::testing
