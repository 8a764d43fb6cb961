// Speculation changes how often the model runs, not what it says.
#include <gtest/gtest.h>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include "qianli/base/error.h"
#include "qianli/infer/engine.h"
#include "tests/infer/requests.h"
#include "tests/infer/small_specs.h"

namespace qianli::infer {
namespace {

using testing::alone;
using testing::run_all;
using testing::small_specs;
using Ids = std::vector<int64_t>;

// So few words that heads which have learnt nothing are right now and then.
constexpr int64_t kWords = 4;

model::ModelSpec with_heads(const std::string& name, int64_t heads) {
  model::ModelSpec spec = small_specs().at(name);
  spec.vocab_size = kWords;
  spec.mtp.num_layers = heads;
  return spec;
}

std::vector<Request> some_requests(int64_t count) {
  std::vector<Request> requests;
  for (int64_t i = 0; i < count; ++i) {
    Request& request =
        requests.emplace_back(Request{.max_new_tokens = 20 + 7 * (i % 3), .ignore_eos = true});
    for (int64_t t = 0; t < 1 + (i * 13) % 50; ++t)
      request.prompt.push_back((t * t + i * 3) % kWords);
    if (i % 2 == 1) request.sampling = {.temperature = 0.9, .seed = static_cast<uint64_t>(i)};
    if (i % 3 == 2) request.sampling.presence_penalty = 0.5;
  }
  return requests;
}

TEST(Speculation, texts_are_what_they_are_without_it) {
  struct Case {
    int64_t heads, drafts;
    int64_t blocks;  // so few that sequences are interrupted; 0: enough
  };
  const Case cases[] = {{1, 1, 0}, {1, 4, 26}, {2, 2, 26}, {2, 3, 0}};
  for (const char* name : {"dense", "window", "some_windows", "latent", "indexer", "mixture"}) {
    for (const auto& [heads, drafts, blocks] : cases) {
      SCOPED_TRACE(std::string(name) + ", " + std::to_string(heads) + " heads, " +
                   std::to_string(drafts) + " drafts");
      const auto model = Model::initialized(with_heads(name, heads), at::kDouble, 7);
      const auto requests = some_requests(5);
      Engine engine(*model, {.block_size = 4,
                             .blocks = blocks,
                             .max_sequences = 4,
                             .tokens_at_once = 24,
                             .speculate = drafts});
      const auto results = run_all(engine, requests);
      for (size_t i = 0; i < requests.size(); ++i)
        EXPECT_EQ(results[i].tokens, alone(*model, requests[i])) << "request " << i;
      const auto load = engine.load();
      EXPECT_GT(load.accepted_tokens, 0);
      EXPECT_LT(load.accepted_tokens, load.drafted_tokens);
      EXPECT_EQ(load.blocks_held, 0);
    }
  }
}

TEST(Speculation, float32_texts_are_the_same_too) {
  const auto model = Model::initialized(with_heads("dense", 1), at::kFloat, 7);
  const auto requests = some_requests(6);
  Engine engine(*model, {.block_size = 8, .speculate = 2});
  const auto results = run_all(engine, requests);
  for (size_t i = 0; i < requests.size(); ++i)
    EXPECT_EQ(results[i].tokens, alone(*model, requests[i])) << "request " << i;
}

at::Tensor ids_of(const Ids& ids) { return at::tensor(ids, at::kLong); }

// The greedy drafts behind `tokens`, without a cache: every head over all rows.
Ids drafts_behind(Model& model, const Ids& tokens, int64_t count) {
  const at::NoGradGuard no_grad;
  const auto rows = static_cast<int64_t>(tokens.size()) - 1;
  const auto input = [&](Ids ids) {
    const auto length = static_cast<int64_t>(ids.size());
    return nn::DecoderInput{.tokens = ids_of(ids),
                            .positions = at::arange(length),
                            .max_position = length - 1,
                            .segment_starts = {0, length}};
  };
  Ids all = tokens;
  at::Tensor state =
      model.decoder().forward_with_state(input({tokens.begin(), tokens.end() - 1})).state;
  const int64_t heads = model.spec().mtp.num_layers;
  for (int64_t step = 0; step < count; ++step) {
    const int64_t head = std::min(step, heads - 1);
    Ids ahead;
    for (int64_t i = 0; i < state.size(0); ++i)
      ahead.push_back(all[static_cast<size_t>(i + head + 1)]);
    const auto predicted =
        model.decoder().look_ahead(static_cast<size_t>(head), input(ahead), state);
    const at::Tensor logits = model.decoder().logits(predicted.normed.narrow(0, -1, 1));
    all.push_back(logits.argmax().item<int64_t>());
    // Behind the last head the next row goes on from its own last state.
    state =
        step + 1 < heads ? predicted.state : at::cat({state, predicted.state.narrow(0, -1, 1)}, 0);
  }
  return {all.begin() + rows + 1, all.end()};
}

TEST(Speculation, drafts_are_what_the_heads_say_of_the_whole_text) {
  for (const char* name : {"dense", "some_windows", "latent", "mixture"}) {
    for (const auto& [heads, count] : {std::pair{1, 1}, {1, 3}, {2, 2}, {2, 3}, {3, 2}}) {
      SCOPED_TRACE(std::string(name) + ", " + std::to_string(heads) + " heads, " +
                   std::to_string(count) + " drafts");
      const auto model = Model::initialized(with_heads(name, heads), at::kDouble, 7);
      const Request request{
          .prompt = {0, 1, 1, 3, 2, 0, 2, 2, 1, 0, 3}, .max_new_tokens = 30, .ignore_eos = true};
      Ids text = request.prompt;
      const Ids made = alone(*model, request);
      // Pass by pass.
      int64_t drafted = 0, accepted = 0;
      for (size_t next = 1; next < made.size();) {
        text = request.prompt;
        text.insert(text.end(), made.begin(), made.begin() + static_cast<ptrdiff_t>(next));
        const auto room = static_cast<int64_t>(made.size() - next) - 1;
        const Ids drafts = drafts_behind(*model, text, std::min<int64_t>(count, room));
        drafted += static_cast<int64_t>(drafts.size());
        size_t right = 0;
        while (right < drafts.size() && drafts[right] == made[next + right]) ++right;
        accepted += static_cast<int64_t>(right);
        next += right + 1;
      }
      Engine engine(*model, {.block_size = 4, .tokens_at_once = 6, .speculate = count});
      const auto result = run_all(engine, {request})[0];
      EXPECT_EQ(result.tokens, made);
      EXPECT_EQ(result.drafted_tokens, drafted);
      EXPECT_EQ(result.accepted_tokens, accepted);
    }
  }
}

TEST(Speculation, prefixes_are_shared_and_ends_are_kept_to) {
  const auto model = Model::initialized(with_heads("dense", 2), at::kDouble, 7);
  Request request{.max_new_tokens = 25};
  for (int64_t t = 0; t < 30; ++t) request.prompt.push_back(t * t % kWords);
  const Ids whole =
      alone(*model, {.prompt = request.prompt, .max_new_tokens = 25, .ignore_eos = true});
  Engine engine(*model, {.block_size = 4, .speculate = 3});
  EXPECT_EQ(run_all(engine, {request})[0].tokens, whole);
  const auto again = run_all(engine, {request})[0];
  EXPECT_EQ(again.cached_tokens, 28);
  EXPECT_EQ(again.tokens, whole);
  // A word that ends the text ends it in the middle of what was drafted, too.
  for (int64_t word = 0; word < kWords; ++word) {
    request.stop_ids = {word};
    const auto place = std::ranges::find(whole, word);
    const auto result = run_all(engine, {request})[0];
    const auto length = place == whole.end() ? whole.end() : place + 1;
    EXPECT_EQ(result.tokens, Ids(whole.begin(), length));
  }
}

TEST(Speculation, models_that_cannot_are_refused) {
  const auto plain = Model::initialized(small_specs().at("dense"), at::kFloat, 7);
  EXPECT_THROW(Engine(*plain, {.speculate = 1}), ConfigError);
  model::ModelSpec spec = small_specs().at("hybrid");
  spec.mtp.num_layers = 1;
  const auto recurrent = Model::initialized(spec, at::kFloat, 7);
  EXPECT_THROW(Engine(*recurrent, {.speculate = 1}), ConfigError);
}

}  // namespace
}  // namespace qianli::infer
