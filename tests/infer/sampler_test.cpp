#include "qianli/infer/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "qianli/base/error.h"
#include "tests/infer/golden.h"
#include "tests/support/test_paths.h"

namespace qianli::infer {
namespace {

using testing::read_tensor;
using testing::source_path;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Sampler, processors_equal_transformers) {
  const auto file = source_path("tests/golden/sampler.safetensors");
  at::Tensor logits = read_tensor(file, "logits");
  const at::Tensor expected = read_tensor(file, "processed");
  const at::Tensor settings = read_tensor(file, "settings");
  const auto seen = testing::rows_of(read_tensor(file, "seen"));
  const int64_t vocabulary = logits.size(1);
  for (int64_t row = 0; row < logits.size(0); ++row) {
    const double* setting = settings.data_ptr<double>() + 4 * row;
    Sampler sampler({.temperature = setting[1],
                     .top_k = static_cast<int64_t>(setting[2]),
                     .top_p = setting[3],
                     .repetition_penalty = setting[0]},
                    vocabulary);
    sampler.see(seen[row]);
    const std::span scores(logits.data_ptr<float>() + row * vocabulary, vocabulary);
    sampler.process(scores);
    const float* wanted = expected.data_ptr<float>() + row * vocabulary;
    for (int64_t id = 0; id < vocabulary; ++id) {
      ASSERT_EQ(scores[id], wanted[id]) << "case " << row << ", token " << id;
    }
  }
}

TEST(Sampler, greedy_takes_the_first_of_the_best) {
  Sampler sampler({}, 5);
  std::vector<float> scores{1, 4, -2, 4, 3};
  EXPECT_EQ(sampler.pick(scores, 0), 1);
}

TEST(Sampler, greedy_heeds_the_repetition_penalty) {
  Sampler sampler({.repetition_penalty = 2.0}, 3);
  const std::vector<int64_t> seen{1, 1};
  sampler.see(seen);
  std::vector<float> scores{2.5, 4, 1};
  EXPECT_EQ(sampler.pick(scores, 0), 0);
}

TEST(Sampler, penalties_count_what_was_generated) {
  Sampler sampler({.presence_penalty = 0.5, .frequency_penalty = 0.25}, 4);
  const std::vector<int64_t> prompt{0};
  sampler.see(prompt);
  for (const int64_t id : {2, 3, 2}) sampler.make(id);
  std::vector<float> scores{1, 1, 1, 1};
  sampler.process(scores);
  EXPECT_EQ(scores, (std::vector<float>{1, 1, 0, 0.25}));
}

TEST(Sampler, biases_and_allowed_tokens_come_first) {
  Sampler sampler({.logit_bias = {{3, 5.0}, {1, -100.0}}}, 4);
  std::vector<float> scores{1, 2, 0, -1};
  sampler.process(scores);
  EXPECT_EQ(scores, (std::vector<float>{1, -98, 0, 4}));
  sampler.allow({1, 2});
  scores = {1, 2, 0, -1};
  EXPECT_EQ(sampler.pick(scores, 0), 2);
  EXPECT_EQ(scores, (std::vector<float>{-kInfinity, -98, 0, -kInfinity}));
  EXPECT_THROW(Sampler({.logit_bias = {{4, 1.0}}}, 4), ConfigError);
  EXPECT_THROW(Sampler({.presence_penalty = 2.5}, 4), ConfigError);
}

TEST(Sampler, min_p_keeps_a_share_of_the_best) {
  Sampler sampler({.temperature = 1.0, .min_p = 0.25}, 4);
  std::vector<float> scores{std::log(0.5f), std::log(0.2f), std::log(0.1f), std::log(0.2f)};
  sampler.process(scores);
  EXPECT_GT(scores[1], -kInfinity);
  EXPECT_EQ(scores[2], -kInfinity);
}

TEST(Sampler, draws_by_probability_and_repeats_by_seed_and_position) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.3f), -kInfinity, std::log(0.2f)};
  constexpr int kDraws = 20000;
  std::vector<int> counts(4, 0);
  Sampler sampler({.temperature = 1.0, .seed = 7}, 4), again({.temperature = 1.0, .seed = 7}, 4);
  Sampler other({.temperature = 1.0, .seed = 8}, 4);
  int differ = 0;
  for (int i = 0; i < kDraws; ++i) {
    auto a = logits, b = logits, c = logits;
    const int64_t id = sampler.pick(a, i);
    ++counts[id];
    EXPECT_EQ(again.pick(b, i), id);
    differ += other.pick(c, i) != id;
  }
  // Four standard deviations of a share of 20000 draws.
  EXPECT_NEAR(counts[0] / double(kDraws), 0.5, 0.0142);
  EXPECT_NEAR(counts[1] / double(kDraws), 0.3, 0.0130);
  EXPECT_NEAR(counts[3] / double(kDraws), 0.2, 0.0114);
  EXPECT_EQ(counts[2], 0);
  EXPECT_GT(differ, kDraws / 2);
}

TEST(Sampler, refuses_logits_that_are_not_finite) {
  for (const float bad : {std::nanf(""), kInfinity}) {
    for (const double temperature : {0.0, 1.0}) {
      Sampler sampler({.temperature = temperature}, 3);
      std::vector<float> scores{1, bad, 2};
      EXPECT_THROW(sampler.pick(scores, 0), NonFiniteError);
    }
  }
  Sampler sampler({}, 2);
  std::vector<float> scores{-kInfinity, -kInfinity};
  EXPECT_THROW(sampler.pick(scores, 0), NonFiniteError);
}

TEST(Sampler, refuses_options_out_of_range) {
  EXPECT_THROW(Sampler({.temperature = -1}, 4), ConfigError);
  EXPECT_THROW(Sampler({.temperature = std::nan("")}, 4), ConfigError);
  EXPECT_THROW(Sampler({.top_k = -1}, 4), ConfigError);
  EXPECT_THROW(Sampler({.top_p = 1.5}, 4), ConfigError);
  EXPECT_THROW(Sampler({.repetition_penalty = 0}, 4), ConfigError);
}

}  // namespace
}  // namespace qianli::infer
