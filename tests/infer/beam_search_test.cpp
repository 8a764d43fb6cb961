#include "qianli/infer/beam_search.h"

#include <gtest/gtest.h>

#include <cmath>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/infer/generate.h"
#include "tests/infer/golden.h"
#include "tests/support/test_paths.h"

namespace qianli::infer {
namespace {

TEST(BeamSearch, equals_transformers) {
  const Json cases = read_json(testing::source_path("tests/golden/beams.json"), FileRole::kData);
  std::string name;
  std::unique_ptr<Model> model;
  for (const Json& c : cases) {
    SCOPED_TRACE(c.dump().substr(0, 160));
    if (c["model"] != name) model = testing::open_golden(name = c["model"], "fp32");
    const TokenIds prompt = c["prompt"];
    const auto beams = beam_search(*model, prompt,
                                   {.num_beams = c["num_beams"],
                                    .length_penalty = c["length_penalty"],
                                    .max_new_tokens = 20,
                                    .ignore_eos = true,
                                    .stop_ids = c["eos"],
                                    .repetition_penalty = c.value("repetition_penalty", 1.0)});
    ASSERT_EQ(beams.size(), c["beams"].size());
    for (size_t i = 0; i < beams.size(); ++i) {
      EXPECT_EQ(beams[i].tokens, c["beams"][i]["tokens"].get<TokenIds>()) << "beam " << i;
      const double score = c["beams"][i]["score"];  // a float32 sum of 20 terms
      EXPECT_NEAR(beams[i].score, score, 1e-4 + 20 * 6e-8 * std::abs(score)) << "beam " << i;
    }
  }
}

TEST(BeamSearch, one_beam_is_greedy) {
  const auto model = testing::open_golden("llama2", "fp64");
  const TokenIds prompt{3, 1, 4, 1, 5};
  const auto beams = beam_search(*model, prompt, {.num_beams = 1, .max_new_tokens = 40});
  ASSERT_EQ(beams.size(), 1u);
  EXPECT_EQ(beams[0].tokens, generate(*model, prompt, {.max_new_tokens = 40}).tokens);
}

TEST(BeamSearch, refuses_what_it_cannot_do) {
  const auto model = testing::open_golden("llama2", "fp32");
  const TokenIds prompt{1};
  EXPECT_THROW(beam_search(*model, prompt, {.num_beams = 0}), ConfigError);
  EXPECT_THROW(beam_search(*model, {}, {}), DataError);
  EXPECT_THROW(beam_search(*model, prompt, {.length_penalty = 1.0 / 0.0}), ConfigError);
}

}  // namespace
}  // namespace qianli::infer
