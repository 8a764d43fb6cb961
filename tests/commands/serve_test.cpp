// The server as its operator starts and stops it.
#include <httplib.h>
#include <signal.h>

#include <cmath>
#include <map>
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

TEST_F(ServeTest, AdaptersAreModelsOfTheirOwn) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(pretrain({"run.dir=base", "train.steps=2", "checkpoint.hugging_face=true"}));
  for (const std::string name : {"kind", "rude"}) {
    expect_success(pretrain({"model=base/hugging_face", "tune.method=lora", "tune.r=4",
                             "optim.lr=0.5", "train.steps=4", "run.dir=" + name,
                             "train.seed=" + std::to_string(name.size() + name[0])}));
  }
  expect_success(qianli({"convert", "kind", "kind_folder", "--to", "peft"}));
  // The text, and how probable its first token is.
  using Said = std::pair<std::string, double>;
  const auto generated = [&](std::vector<std::string> more) {
    std::vector<std::string> command{
        "generate", "base/hugging_face", "--prompt", "the cat",     "-n", "12", "--greedy",
        "--json",   "--precision",       "fp32",     "--log-probs", "0"};
    command.insert(command.end(), more.begin(), more.end());
    const Result result = qianli(command);
    expect_success(result);
    const Json answer = Json::parse(result.out);
    return Said{answer["text"], answer["log_probs"][0]["log_prob"]};
  };
  // A run, and the folder that it was written to.
  const std::map<std::string, Said> expected = {{"hugging_face", generated({})},
                                                {"nice", generated({"--adapter", "kind"})},
                                                {"rude", generated({"--adapter", "rude"})}};
  EXPECT_EQ(generated({"--adapter", "kind_folder"}), expected.at("nice"));
  for (const std::string other : {"hugging_face", "rude"})
    EXPECT_GT(std::abs(expected.at("nice").second - expected.at(other).second), 1e-3) << other;

  RunOptions how = options();
  how.standard_output = path("url");
  write_text(path("url"), "");
  Program server({"serve", "base/hugging_face", "--port", "0", "--precision", "fp32", "--template",
                  "default", "--adapter", "nice=kind_folder", "--adapter", "rude"},
                 how);
  ASSERT_TRUE(server.wait_for([&] { return port_in(read_text(path("url"))) > 0; }))
      << server.finish().err;
  const int port = port_in(read_text(path("url")));
  httplib::Client client("127.0.0.1", port);
  client.set_read_timeout(60);
  const Json models = Json::parse(client.Get("/v1/models")->body)["data"];
  ASSERT_EQ(models.size(), 3u);
  EXPECT_EQ(models[0]["id"], "hugging_face");
  EXPECT_EQ(models[1]["id"], "nice");
  EXPECT_EQ(models[1]["parent"], "hugging_face");
  EXPECT_EQ(Json::parse(client.Get("/v1/models/rude")->body)["id"], "rude");
  EXPECT_EQ(client.Get("/v1/models/kind")->status, 404);
  std::vector<std::thread> askers;
  for (const auto& [name, said] : expected) {
    askers.emplace_back([&, name = name, said = said] {
      httplib::Client own("127.0.0.1", port);
      own.set_read_timeout(60);
      const Json body{{"model", name},
                      {"prompt", "the cat"},
                      {"max_tokens", 12},
                      {"temperature", 0},
                      {"logprobs", 0}};
      const auto answer = own.Post("/v1/completions", body.dump(), "application/json");
      const Json choice = Json::parse(answer->body)["choices"][0];
      EXPECT_EQ(choice["text"], said.first) << name;
      EXPECT_NEAR(choice["logprobs"]["token_logprobs"][0].get<double>(), said.second, 1e-4);
      EXPECT_EQ(Json::parse(answer->body)["model"], name);
    });
  }
  for (auto& asker : askers) asker.join();
  const auto refused =
      client.Post("/v1/completions", R"({"model": "kind", "prompt": "x"})", "application/json");
  EXPECT_EQ(refused->status, 404);
  EXPECT_NE(refused->body.find("nice, rude"), std::string::npos) << refused->body;
  server.send(SIGTERM);
  EXPECT_EQ(server.finish().code, 0);

  expect_failure(
      qianli({"serve", "base/hugging_face", "--adapter", "a=kind", "--adapter", "a=rude"}), 2,
      {"another name", "'a'"});
  expect_failure(qianli({"generate", "base/hugging_face", "--prompt", "x", "--adapter", "base"}), 6,
                 {"whole model"});
  expect_success(pretrain({"run.dir=wide", "train.steps=2", "model.hidden_size=64"}));
  expect_failure(qianli({"generate", "wide", "--prompt", "x", "--adapter", "kind"}), 6, {"kind"});
}

// A check of tools/reference that is given the program and a model with a chat template.
class ServedClientTest : public Workshop {
 protected:
  void check(const std::string& python, const std::string& script) const {
    write_text(path("tokenizer/chat_template.jinja"),
               "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
               "{% if add_generation_prompt %}assistant:{% endif %}");
    trained("run");
    const Result result =
        shell(python + " -B '" + source_path("tools/reference/" + script).string() + "' '" +
              program_path().string() + "' run");
    EXPECT_EQ(result.code, 0) << result.out << result.err;
  }
};

TEST_F(ServedClientTest, ChatPageInChromium) {
  QIANLI_REQUIRE_ENGINE();
  if (shell("command -v chromium").code != 0) GTEST_SKIP() << "chromium is not installed";
  check("python3", "check_chat_page.py");
}

TEST_F(ServedClientTest, OpenaiClient) {
  QIANLI_REQUIRE_ENGINE();
  const char* set = std::getenv("QIANLI_OPENAI_PYTHON");
  const std::string python = set ? set : "python3";
  if (shell(python + " -c 'import openai'").code != 0)
    GTEST_SKIP() << "no openai package for Python: QIANLI_OPENAI_PYTHON="
                    "$(tools/reference/setup.sh openai) makes one";
  check(python, "check_server.py");
}

TEST_F(ServeTest, RefusesToBeOpenToAnyoneUnasked) {
  expect_failure(qianli({"serve", "model", "--host", "0.0.0.0"}), 2,
                 {"--api-key", "--allow-anyone"});
  QIANLI_REQUIRE_ENGINE();
  expect_failure(qianli({"serve", "absent"}), 2, {"absent"});
}

}  // namespace
}  // namespace qianli::testing
