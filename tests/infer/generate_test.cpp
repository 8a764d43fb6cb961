#include "qianli/infer/generate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "tests/infer/golden.h"

namespace qianli::infer {
namespace {

using testing::open_golden;

const TokenIds kPrompt{11, 23, 5, 42, 8, 61, 77};

// The tokens one gets without a cache: the whole sequence through the decoder for every token.
TokenIds greedy_without_cache(Model& model, TokenIds ids, int64_t count) {
  const auto prompt = static_cast<int64_t>(ids.size());
  for (int64_t i = 0; i < count; ++i) {
    at::Tensor last;
    const std::vector<TokenIds> one{ids};
    score(model, one, {}, [&](const at::Tensor& rows) { last = rows[rows.size(0) - 1].clone(); });
    ids.push_back(last.argmax().item<int64_t>());
  }
  return {ids.begin() + prompt, ids.end()};
}

TEST(Generate, greedy_equals_decoding_without_a_cache) {
  for (const char* name : {"gpt2", "llama2", "mistral_window", "qwen3"}) {
    const auto model = open_golden(name, "fp64");
    const auto expected = greedy_without_cache(*model, kPrompt, 20);
    for (const int64_t chunk : {1, 3, 512}) {
      const auto found = generate(
          *model, kPrompt, {.max_new_tokens = 20, .ignore_eos = true, .prefill_chunk = chunk});
      EXPECT_EQ(found.tokens, expected) << name << ", chunk " << chunk;
      EXPECT_EQ(found.reason, StopReason::kLength);
      EXPECT_EQ(found.prompt_tokens, 7);
      EXPECT_EQ(found.decode_steps, 19);
    }
  }
}

TEST(Generate, sampling_repeats_by_seed) {
  const auto model = open_golden("llama2", "fp32");
  GenerateOptions options{
      .sampling = {.temperature = 1.5, .seed = 3}, .max_new_tokens = 30, .ignore_eos = true};
  const auto first = generate(*model, kPrompt, options).tokens;
  EXPECT_EQ(generate(*model, kPrompt, options).tokens, first);
  options.sampling.seed = 4;
  EXPECT_NE(generate(*model, kPrompt, options).tokens, first);
}

TEST(Generate, stops_at_the_end_of_text) {
  const auto model = open_golden("llama2", "fp32");
  const int64_t eos = model->eos_ids().at(0);
  // Some seed draws the end among 97 tokens; every run must stop at its first one.
  int ended = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    GenerateOptions options{
        .sampling = {.temperature = 2.0, .seed = seed}, .max_new_tokens = 50, .ignore_eos = true};
    auto expected = generate(*model, kPrompt, options).tokens;
    const auto end = std::find(expected.begin(), expected.end(), eos);
    const bool ends = end != expected.end();
    if (ends) expected.erase(end + 1, expected.end());
    options.ignore_eos = false;
    const auto found = generate(*model, kPrompt, options);
    EXPECT_EQ(found.tokens, expected);
    EXPECT_EQ(found.reason, ends ? StopReason::kEndOfText : StopReason::kLength);
    ended += ends;
  }
  EXPECT_GT(ended, 0);
}

TEST(Generate, stops_where_the_context_is_full) {
  const auto model = open_golden("llama2", "fp32");  // 64 positions
  const auto found = generate(*model, kPrompt, {.max_new_tokens = 1000, .ignore_eos = true});
  EXPECT_EQ(found.tokens.size(), 57u);
  EXPECT_EQ(found.reason, StopReason::kContext);
  EXPECT_THROW(generate(*model, TokenIds(64, 1), {}), DataError);
}

TEST(Generate, stops_when_the_listener_says_so) {
  const auto model = open_golden("llama2", "fp32");
  TokenIds heard;
  const auto found = generate(*model, kPrompt, {.ignore_eos = true}, [&](int64_t id) {
    heard.push_back(id);
    return heard.size() < 5;
  });
  EXPECT_EQ(found.tokens, heard);
  EXPECT_EQ(heard.size(), 5u);
  EXPECT_EQ(found.reason, StopReason::kListener);
}

TEST(Generate, refuses_bad_prompts) {
  const auto model = open_golden("llama2", "fp32");
  EXPECT_THROW(generate(*model, TokenIds{}, {}), DataError);
  EXPECT_THROW(generate(*model, TokenIds{1, 97}, {}), DataError);
  EXPECT_THROW(generate(*model, TokenIds{-1}, {}), DataError);
  EXPECT_TRUE(generate(*model, kPrompt, {.max_new_tokens = 0}).tokens.empty());
}

}  // namespace
}  // namespace qianli::infer
