#include "qianli/model/rotary.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/model/hugging_face.h"
#include "tests/support/test_paths.h"

namespace qianli::model {
namespace {

const Json& golden() {
  static const Json golden =
      read_json(testing::source_path("tests/golden/rotary.json"), FileRole::kData);
  return golden;
}

ModelSpec spec_of(const Json& item) {
  return from_hugging_face(item.at("config"), item.at("name").get<std::string>());
}

RotaryFrequencies frequencies_of(const ModelSpec& spec, int64_t length,
                                 RotaryPrecision precision = RotaryPrecision::kSingle) {
  return rotary_frequencies(spec.rope, spec.rotary_size(spec.rope), spec.max_position_embeddings,
                            length, precision);
}

// Places between two values of float32.
int64_t float_steps(double a, double b) {
  const auto place = [](double x) {
    return static_cast<int64_t>(std::bit_cast<int32_t>(static_cast<float>(x)));
  };
  return std::abs(place(a) - place(b));
}

TEST(RotaryFrequencies, in_single_precision_are_those_of_transformers_to_the_last_place) {
  // transformers' vectorised pow is not always the nearest float32; ours is. It differs in one of a
  // hundred frequencies, by one place.
  size_t values = 0, off = 0;
  for (const Json& item : golden().at("cases")) {
    const auto actual = frequencies_of(spec_of(item), item.at("length"));
    const auto expected = item.at("inverse").get<std::vector<double>>();
    ASSERT_EQ(actual.inverse.size(), expected.size()) << item.at("name");
    EXPECT_NEAR(actual.amplitude, item.at("amplitude").get<double>(), 1e-15) << item.at("name");
    for (size_t i = 0; i < expected.size(); ++i) {
      const int64_t steps = float_steps(actual.inverse[i], expected[i]);
      EXPECT_LE(steps, 1) << item.at("name") << " " << i;
      off += static_cast<size_t>(steps);
    }
    values += expected.size();
  }
  EXPECT_LE(off * 50, values);
}

TEST(RotaryFrequencies, in_double_precision_follow_the_formulas_exactly) {
  for (const Json& item : golden().at("cases")) {
    const auto actual = frequencies_of(spec_of(item), item.at("length"), RotaryPrecision::kDouble);
    const auto expected = item.at("inverse_float64").get<std::vector<double>>();
    ASSERT_EQ(actual.inverse.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(actual.inverse[i] / expected[i], 1.0, 1e-14) << item.at("name") << " " << i;
    }
  }
}

TEST(RotaryFrequencies, give_yarn_its_published_amplitude) {
  ModelSpec spec = spec_of(golden().at("cases").at(0));
  spec.rope.scaling = {
      .kind = RopeScalingKind::kYarn, .factor = 32.0, .original_max_positions = 4096};
  EXPECT_NEAR(frequencies_of(spec, 1).amplitude, 1.346574, 5e-7);
}

TEST(RotaryFrequencies, give_deepseek_yarn_both_of_its_multipliers) {
  ModelSpec spec = spec_of(golden().at("cases").at(0));
  spec.rope.scaling = {.kind = RopeScalingKind::kYarn,
                       .factor = 40.0,
                       .original_max_positions = 4096,
                       .mscale = 0.707,
                       .mscale_all_dim = 0.707};
  EXPECT_EQ(frequencies_of(spec, 1).amplitude, 1.0);
  spec.rope.scaling.mscale = 1.0;
  EXPECT_NEAR(frequencies_of(spec, 1).amplitude, 1.368888 / 1.260804, 1e-6);
}

TEST(RotaryFrequencies, of_longrope_change_behind_the_original_positions) {
  const Rope rope{.base = 10000.0,
                  .scaling = {.kind = RopeScalingKind::kLongrope,
                              .original_max_positions = 4096,
                              .short_factor = {1.0, 2.0},
                              .long_factor = {4.0, 8.0}}};
  const auto near = rotary_frequencies(rope, 4, 131072, 4096);
  const auto far = rotary_frequencies(rope, 4, 131072, 4097);
  EXPECT_NEAR(near.amplitude, 1.190238, 1e-6);  // sqrt(1 + ln 32 / ln 4096)
  EXPECT_NEAR(near.inverse[1], 1.0 / (2.0 * 100.0), 1e-9);
  EXPECT_NEAR(far.inverse[0], 1.0 / 4.0, 1e-9);
  EXPECT_NEAR(far.inverse[1], 1.0 / (8.0 * 100.0), 1e-9);
  EXPECT_EQ(length_independent_up_to(rope, 131072), 4096);
}

TEST(RotaryFrequencies, of_a_fixed_stretch_have_a_larger_base_at_every_length) {
  const Rope rope{.scaling = {.kind = RopeScalingKind::kNtkAlpha, .factor = 1000.0}};
  const auto frequencies = rotary_frequencies(rope, 128, 131072, 1, RotaryPrecision::kDouble);
  const double base = 10000.0 * std::pow(1000.0, 128.0 / 126.0);
  EXPECT_NEAR(frequencies.inverse[63] / std::pow(base, -126.0 / 128.0), 1.0, 1e-12);
}

TEST(RotaryFrequencies, turn_pairs_as_transformers_does_at_thousands_of_positions) {
  const auto positions = golden().at("positions").get<std::vector<int64_t>>();
  for (const Json& item : golden().at("cases")) {
    const auto expected = item.at("inverse").get<std::vector<double>>();
    const auto own = frequencies_of(spec_of(item), item.at("length"));
    for (size_t row = 0; row < positions.size(); ++row) {
      for (size_t i = 0; i < expected.size(); ++i) {
        const float angle = static_cast<float>(positions[row]) * static_cast<float>(own.inverse[i]);
        // A frequency that is one place off turns the pair by that much; all others agree.
        const double turned =
            static_cast<double>(positions[row]) * std::abs(own.inverse[i] - expected[i]);
        const double tolerance = 1e-6 + own.amplitude * turned * 1.01;
        EXPECT_NEAR(std::cos(angle) * own.amplitude, item.at("cos")[row][i].get<double>(),
                    tolerance);
        EXPECT_NEAR(std::sin(angle) * own.amplitude, item.at("sin")[row][i].get<double>(),
                    tolerance);
      }
    }
  }
}

}  // namespace
}  // namespace qianli::model
