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
    const auto actual = rotary_frequencies(spec_of(item), item.at("length"));
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
    const auto actual =
        rotary_frequencies(spec_of(item), item.at("length"), RotaryPrecision::kDouble);
    const auto expected = item.at("inverse_float64").get<std::vector<double>>();
    ASSERT_EQ(actual.inverse.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(actual.inverse[i] / expected[i], 1.0, 1e-14) << item.at("name") << " " << i;
    }
  }
}

TEST(RotaryFrequencies, give_yarn_its_published_amplitude) {
  ModelSpec spec = spec_of(golden().at("cases").at(0));
  spec.rope_scaling = {
      .kind = RopeScalingKind::kYarn, .factor = 32.0, .original_max_positions = 4096};
  EXPECT_NEAR(rotary_frequencies(spec, 1).amplitude, 1.346574, 5e-7);
}

TEST(RotaryFrequencies, of_learned_positions_are_refused) {
  EXPECT_THROW(rotary_frequencies(load_spec(testing::source_path("tests/golden/models/gpt2")), 1),
               ConfigError);
}

TEST(RotaryFrequencies, turn_pairs_as_transformers_does_at_thousands_of_positions) {
  const auto positions = golden().at("positions").get<std::vector<int64_t>>();
  for (const Json& item : golden().at("cases")) {
    const auto expected = item.at("inverse").get<std::vector<double>>();
    const auto own = rotary_frequencies(spec_of(item), item.at("length"));
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
