#include "qianli/data/instruction/mixing.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/data/numpy_generator.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

// Of tools/reference/golden_mixing.py.
Json golden() {
  return read_json(testing::source_path("tests/golden/mixing.json"), FileRole::kData);
}

TEST(Mixing, bits_are_those_of_numpy) {
  const Json all = golden();
  for (const auto& [seed, bits] : all.at("bits").items()) {
    NumpyGenerator generator(std::stoull(seed));
    for (const Json& word : bits) EXPECT_EQ(generator.bits(), word.get<uint64_t>()) << seed;
  }
}

TEST(Mixing, rows_are_those_of_datasets) {
  int number = 0;
  const Json all = golden();
  for (const Json& one : all.at("cases")) {
    SCOPED_TRACE(one.at("strategy").get<std::string>() + one.at("lengths").dump());
    const Mixing mixing{mix_strategy(one.at("strategy")),
                        one.at("probabilities").get<std::vector<double>>(),
                        one.at("seed").get<uint64_t>()};
    const auto lengths = one.at("lengths").get<std::vector<int64_t>>();
    check_mixing(mixing, lengths.size());
    EXPECT_EQ(mixed_rows(lengths, mixing), one.at("rows").get<std::vector<int64_t>>());
    ++number;
  }
  EXPECT_EQ(number, 22);
}

TEST(Mixing, sets_one_behind_the_other) {
  EXPECT_EQ(mixed_rows(std::vector<int64_t>{2, 0, 1}, {}), (std::vector<int64_t>{0, 1, 2}));
}

TEST(Mixing, what_does_not_fit) {
  EXPECT_THROW(mix_strategy("interleave"), ConfigError);
  const auto refused = [](Mixing mixing) { EXPECT_THROW(check_mixing(mixing, 2), ConfigError); };
  refused({MixStrategy::kConcat, {0.5, 0.5}});
  refused({MixStrategy::kInterleaveOver, {1.0}});
  refused({MixStrategy::kInterleaveOver, {0.5, 0.6}});
  refused({MixStrategy::kInterleaveOver, {1.0, 0.0}});  // would never end
  EXPECT_THROW(mixed_rows(std::vector<int64_t>{2, 0}, {MixStrategy::kInterleaveUnder, {}}),
               DataError);
}

}  // namespace
}  // namespace qianli::data
