#include "qianli/infer/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "qianli/base/error.h"
#include "qianli/infer/engine_thread.h"
#include "tests/infer/golden.h"
#include "tests/infer/requests.h"
#include "tests/infer/small_specs.h"

namespace qianli::infer {
namespace {

using testing::alone;
using testing::open_golden;
using testing::run_all;
using testing::small_specs;

std::unique_ptr<Model> make(const model::ModelSpec& spec, at::ScalarType dtype = at::kFloat) {
  return Model::initialized(spec, dtype, 7);
}

// Of different lengths, with different ways to sample.
std::vector<Request> some_requests(int64_t count) {
  std::vector<Request> requests;
  for (int64_t i = 0; i < count; ++i) {
    Request& request =
        requests.emplace_back(Request{.max_new_tokens = 9 + 5 * (i % 3), .ignore_eos = true});
    for (int64_t t = 0; t < 1 + (i * 13) % 50; ++t) request.prompt.push_back((t * 7 + i * 11) % 61);
    if (i % 2 == 1) request.sampling = {.temperature = 0.9, .seed = static_cast<uint64_t>(i)};
  }
  return requests;
}

TEST(Engine, a_request_gets_in_company_what_it_gets_alone) {
  for (const auto& [name, spec] : small_specs()) {
    SCOPED_TRACE(name);
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      const auto model = make(spec, dtype);
      const auto requests = some_requests(7);
      Engine engine(*model, {.block_size = 8, .max_sequences = 5, .tokens_at_once = 24});
      const auto results = run_all(engine, requests);
      for (size_t i = 0; i < requests.size(); ++i) {
        EXPECT_EQ(results[i].tokens, alone(*model, requests[i])) << "request " << i;
        EXPECT_EQ(results[i].reason, StopReason::kLength);
      }
      EXPECT_EQ(engine.load().blocks_held, 0);
    }
  }
}

TEST(Engine, golden_models_decode_alike_in_any_company) {
  for (const char* name : {"gpt2", "mistral_window", "qwen3", "llama_dynamic"}) {
    SCOPED_TRACE(name);
    const auto model = open_golden(name, "fp32");
    auto requests = some_requests(6);
    for (Request& request : requests)
      request.prompt.resize(std::min<size_t>(request.prompt.size(), 30));
    Engine engine(*model, {.block_size = 16, .tokens_at_once = 40});
    const auto results = run_all(engine, requests);
    for (size_t i = 0; i < requests.size(); ++i)
      EXPECT_EQ(results[i].tokens, alone(*model, requests[i])) << "request " << i;
  }
}

TEST(Engine, too_few_blocks_delay_and_change_nothing) {
  for (const auto& [name, spec] : small_specs()) {
    SCOPED_TRACE(name);
    const auto model = make(spec);
    const auto requests = some_requests(6);
    Engine engine(*model, {.block_size = 4, .blocks = 18, .tokens_at_once = 24});
    const auto results = run_all(engine, requests);
    for (size_t i = 0; i < requests.size(); ++i)
      EXPECT_EQ(results[i].tokens, alone(*model, requests[i])) << "request " << i;
    if (name == "dense") {
      EXPECT_GT(engine.load().preemptions, 0);
    }
    EXPECT_EQ(engine.load().blocks_held, 0);
  }
}

TEST(Engine, equal_beginnings_share_blocks) {
  for (const char* name : {"dense", "latent", "some_windows"}) {
    SCOPED_TRACE(name);
    const auto model = make(small_specs().at(name));
    Request first{.max_new_tokens = 12, .ignore_eos = true};
    for (int64_t t = 0; t < 45; ++t) first.prompt.push_back(t * 3 % 61);
    Request second = first;
    second.prompt.resize(37);
    second.prompt.push_back(60);
    Engine engine(*model, {.block_size = 8});
    EXPECT_EQ(run_all(engine, {first})[0].cached_tokens, 0);
    const auto results = run_all(engine, {second, first});
    EXPECT_EQ(results[0].cached_tokens, 32);
    EXPECT_EQ(results[1].cached_tokens, 40);
    EXPECT_EQ(results[0].tokens, alone(*model, second));
    EXPECT_EQ(results[1].tokens, alone(*model, first));
  }
}

TEST(Engine, a_window_gives_back_the_blocks_behind_it) {
  const auto model = make(small_specs().at("window"));
  Request request{.prompt = {1, 2, 3}, .max_new_tokens = 150, .ignore_eos = true};
  Engine engine(*model, {.block_size = 4});
  int64_t most = 0;
  engine.submit(request,
                [&](const NewToken&) {
                  most = std::max(most, engine.load().blocks_held);
                  return true;
                },
                {});
  while (engine.step()) {
  }
  EXPECT_LE(most, 5);  // a window of 11 lies in at most 4 blocks, and there is the next
  EXPECT_GE(most, 3);
}

TEST(Engine, cancelled_requests_end_and_the_others_go_on) {
  const auto model = make(small_specs().at("dense"));
  const auto requests = some_requests(3);
  Engine engine(*model, {.max_sequences = 2});
  std::vector<Generation> results(3);
  std::vector<Engine::Id> ids;
  for (size_t i = 0; i < 3; ++i) {
    ids.push_back(
        engine.submit(requests[i], {}, [&results, i](const Generation& g) { results[i] = g; }));
  }
  for (int i = 0; i < 3; ++i) engine.step();
  engine.cancel(ids[0]);
  engine.cancel(ids[2]);
  engine.cancel(99);
  while (engine.step()) {
  }
  EXPECT_EQ(results[0].reason, StopReason::kCancelled);
  EXPECT_EQ(results[0].tokens.size(), 3u);
  EXPECT_EQ(results[2].reason, StopReason::kCancelled);
  EXPECT_TRUE(results[2].tokens.empty());
  EXPECT_EQ(results[1].tokens, alone(*model, requests[1]));
  EXPECT_EQ(engine.load().blocks_held, 0);
}

TEST(Engine, choices_are_kept_to) {
  const auto model = make(small_specs().at("dense"));
  const std::vector<std::vector<int64_t>> choices{{5, 6}, {5, 7, 8}, {9}};
  for (uint64_t seed = 0; seed < 12; ++seed) {
    Engine engine(*model, {});
    const auto result = run_all(engine, {{.prompt = {1, 2, 3},
                                          .sampling = {.temperature = 3.0, .seed = seed},
                                          .ignore_eos = true,
                                          .choices = choices}})[0];
    EXPECT_EQ(result.reason, StopReason::kChoice);
    EXPECT_NE(std::ranges::find(choices, result.tokens), choices.end());
  }
}

TEST(Engine, log_probabilities_are_those_of_score) {
  const auto model = make(small_specs().at("dense"));
  Engine engine(*model, {});
  std::vector<NewToken> tokens;
  TokenIds all{4, 8, 15, 16};
  engine.submit({.prompt = all,
                 .sampling = {.temperature = 2.0, .top_k = 5},
                 .max_new_tokens = 8,
                 .ignore_eos = true,
                 .top_log_probs = 3},
                [&](const NewToken& token) {
                  tokens.push_back(token);
                  all.push_back(token.id);
                  return true;
                },
                {});
  while (engine.step()) {
  }
  ASSERT_EQ(tokens.size(), 8u);
  const auto expected = score(*model, std::vector<TokenIds>{all}).log_probs[0];
  for (size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_NEAR(tokens[i].log_prob, expected[3 + i], 1e-4);
    ASSERT_EQ(tokens[i].top.size(), 3u);
    EXPECT_GE(tokens[i].top[0].log_prob, tokens[i].top[1].log_prob);
    EXPECT_GE(tokens[i].top[0].log_prob, tokens[i].log_prob);
  }
}

TEST(Engine, refuses_what_it_cannot_do) {
  const auto model = make(small_specs().at("dense"));
  Engine engine(*model, {.block_size = 4, .blocks = 3});
  const auto submit = [&](Request request) { engine.submit(std::move(request), {}, {}); };
  EXPECT_THROW(submit({.prompt = {}}), DataError);
  EXPECT_THROW(submit({.prompt = {61}}), DataError);
  EXPECT_THROW(submit({.prompt = TokenIds(256, 1)}), DataError);
  EXPECT_THROW(submit({.prompt = TokenIds(12, 1)}), MemoryError);
  EXPECT_THROW(submit({.prompt = {1}, .sampling = {.temperature = -1}}), ConfigError);
  EXPECT_THROW(submit({.prompt = {1}, .choices = {{}}}), DataError);
  // Where the memory ends, the text ends.
  const auto result =
      run_all(engine, {{.prompt = {1, 2}, .max_new_tokens = 50, .ignore_eos = true}})[0];
  EXPECT_EQ(result.reason, StopReason::kContext);
  EXPECT_EQ(result.tokens.size(), 11u);
}

TEST(EngineThread, serves_callers_of_any_thread) {
  const auto model = make(small_specs().at("dense"));
  const auto requests = some_requests(6);
  std::vector<Generation> results(requests.size());
  {
    EngineThread thread(*model, {.max_sequences = 4});
    std::mutex mutex;
    std::condition_variable all_done;
    size_t done = 0;
    std::vector<std::thread> callers;
    for (size_t i = 0; i < requests.size(); ++i) {
      callers.emplace_back([&, i] {
        thread.submit(requests[i], {}, [&, i](const Generation& generation) {
          const std::lock_guard lock(mutex);
          results[i] = generation;
          ++done;
          all_done.notify_one();
        });
      });
    }
    for (auto& caller : callers) caller.join();
    std::unique_lock lock(mutex);
    all_done.wait(lock, [&] { return done == requests.size(); });
  }
  for (size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(results[i].tokens, alone(*model, requests[i]));
}

TEST(EngineThread, ends_what_runs_when_it_ends) {
  const auto model = make(small_specs().at("dense"));
  Generation result;
  {
    EngineThread thread(*model, {});
    thread.submit({.prompt = {1}, .max_new_tokens = 1 << 20, .ignore_eos = true}, {},
                  [&](const Generation& generation) { result = generation; });
    EXPECT_THROW(thread.submit({.prompt = {}}, {}, {}), DataError);
  }
  EXPECT_TRUE(result.reason == StopReason::kCancelled || result.reason == StopReason::kContext);
}

}  // namespace
}  // namespace qianli::infer
