#include "qianli/infer/score.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include <cmath>

#include "qianli/base/error.h"
#include "tests/infer/golden.h"
#include "tests/support/engine_support.h"

namespace qianli::infer {
namespace {

using testing::expect_close;
using testing::golden_tensor;
using testing::open_golden;

// [n - 1] log-probabilities from golden logits.
std::vector<double> expected_log_probs(const at::Tensor& logits, const TokenIds& ids) {
  const at::Tensor log_probs = at::log_softmax(logits.to(at::kDouble), -1);
  std::vector<double> expected;
  for (size_t i = 0; i + 1 < ids.size(); ++i)
    expected.push_back(log_probs[i][ids[i + 1]].item<double>());
  return expected;
}

void expect_near(const std::vector<double>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 2e-5) << i;
}

TEST(Score, equals_the_log_probabilities_of_golden_logits) {
  for (const char* name : {"gpt2", "llama3.1", "mistral_window", "qwen2_yarn"}) {
    const auto model = open_golden(name, "fp32");
    auto sequences = testing::rows_of(golden_tensor(name, "tokens"));
    const at::Tensor logits = golden_tensor(name, "logits");
    sequences[1].resize(17);  // a causal model's answers do not change by what follows
    // One pack, one by one, and in parts through the cache.
    for (const int64_t at_once : {2048, 40, 12}) {
      const Scores found = score(*model, sequences, {.tokens_at_once = at_once});
      for (size_t s = 0; s < sequences.size(); ++s) {
        expect_near(found.log_probs[s], expected_log_probs(logits[s], sequences[s]));
      }
      EXPECT_EQ(found.tokens, 39 + 16);
    }
  }
}

TEST(Score, mean_and_perplexity_are_over_all_tokens) {
  const Scores scores{.log_probs = {{-1.0, -2.0, -3.0}, {-6.0}}, .tokens = 4};
  EXPECT_DOUBLE_EQ(scores.mean_nll(), 3.0);
  EXPECT_DOUBLE_EQ(scores.perplexity(), std::exp(3.0));
  EXPECT_TRUE(std::isnan(Scores{}.mean_nll()));
}

TEST(Score, hands_out_logits_in_the_order_asked_for) {
  const auto model = open_golden("llama2", "fp32");
  const auto sequences = testing::rows_of(golden_tensor("llama2", "tokens"));
  const at::Tensor expected = golden_tensor("llama2", "logits");
  const std::vector<size_t> order{1, 0};
  for (const int64_t at_once : {2048, 13}) {
    std::vector<at::Tensor> rows;
    const Scores found = score(
        *model, sequences, {.tokens_at_once = at_once},
        [&](const at::Tensor& block) { rows.push_back(block.clone()); }, order);
    expect_close(at::cat(rows), at::cat({expected[1], expected[0]}), 1e-5);
    for (size_t s : order)
      expect_near(found.log_probs[s], expected_log_probs(expected[s], sequences[s]));
  }
}

TEST(Score, a_single_token_has_no_log_probabilities) {
  const auto model = open_golden("llama2", "fp32");
  const std::vector<TokenIds> sequences{{5}, {5, 6}};
  const Scores found = score(*model, sequences);
  EXPECT_TRUE(found.log_probs[0].empty());
  EXPECT_EQ(found.log_probs[1].size(), 1u);
  EXPECT_EQ(found.tokens, 1);
}

TEST(Score, refuses_bad_sequences) {
  const auto llama = open_golden("llama2", "fp32");
  for (const TokenIds& bad : {TokenIds{}, TokenIds{1, 97}, TokenIds{-1, 2}}) {
    EXPECT_THROW(score(*llama, std::vector<TokenIds>{{1, 2}, bad}), DataError);
  }
  const auto gpt2 = open_golden("gpt2", "fp32");
  const auto limit = static_cast<size_t>(gpt2->position_limit());
  EXPECT_EQ(score(*gpt2, std::vector<TokenIds>{TokenIds(limit, 3)}).tokens,
            gpt2->position_limit() - 1);
  EXPECT_THROW(score(*gpt2, std::vector<TokenIds>{TokenIds(limit + 1, 3)}), DataError);
}

}  // namespace
}  // namespace qianli::infer
