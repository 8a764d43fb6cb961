#include "qianli/data/gpt_dataset.h"

#include <gtest/gtest.h>

#include <map>

#include "qianli/base/error.h"
#include "qianli/data/numpy_random.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing::TemporaryFolder;
using Values = std::vector<int64_t>;

// Document d holds tokens 1000 * d, 1000 * d + 1, ...: a token tells where it came from.
fs::path write_corpus(const fs::path& prefix, const std::vector<int32_t>& lengths,
                      int32_t first_document = 0) {
  formats::IndexedDatasetWriter writer(prefix);
  for (size_t d = 0; d < lengths.size(); ++d) {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < lengths[d]; ++i) {
      tokens.push_back(1000 * (first_document + static_cast<int32_t>(d)) + i);
    }
    writer.add_item(tokens);
    writer.end_document();
  }
  writer.commit();
  return prefix;
}

Values read(const SampleSet& samples, int64_t index) {
  Values tokens(static_cast<size_t>(samples.sample_length()));
  samples.read(index, tokens);
  return tokens;
}

TEST(GptDataset, samples_of_the_worked_example) {
  TemporaryFolder folder;
  formats::IndexedDatasetWriter writer(folder / "c");
  for (const std::vector<int32_t>& document :
       {std::vector<int32_t>{10, 11, 12, 13, 14}, {20, 21, 22}, {30, 31, 32, 33, 34, 35, 36}}) {
    writer.add_item(document);
    writer.end_document();
  }
  writer.commit();
  const auto samples =
      GptDataset::open(folder / "c", Split::kTrain, std::nullopt, 8, {.sequence_length = 4});
  EXPECT_EQ(samples->size(), 11);
  EXPECT_EQ(read(*samples, 0), (Values{22, 10, 11, 12, 13}));
  EXPECT_EQ(read(*samples, 1), (Values{36, 10, 11, 12, 13}));
  EXPECT_EQ(read(*samples, 2), (Values{30, 31, 32, 33, 34}));
}

TEST(GptDataset, a_short_validation_sample_is_padded) {
  TemporaryFolder folder;
  write_corpus(folder / "c", {5, 9, 3, 7, 6, 4, 8, 2, 10, 6});
  const auto samples = GptDataset::open(folder / "c", Split::kValidation, "6,2,2", std::nullopt,
                                        {.sequence_length = 8, .drop_last_partial = false});
  ASSERT_EQ(samples->size(), 2);
  EXPECT_EQ(read(*samples, 0), (Values{6000, 6001, 6002, 6003, 6004, 6005, 6006, 6007, 7000}));
  EXPECT_EQ(read(*samples, 1), (Values{7000, 7001, kPadding, kPadding, kPadding, kPadding, kPadding,
                                       kPadding, kPadding}));
}

// In one epoch every token is a label exactly once, but the very first one and an unused rest.
TEST(GptDataset, an_epoch_covers_every_token_once) {
  TemporaryFolder folder;
  RandomState random(3);
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<int32_t> lengths;
    for (int d = 0; d < 12; ++d) lengths.push_back(static_cast<int32_t>(random.draw(30)));
    lengths.push_back(20);
    int64_t total = 0;
    for (const int32_t length : lengths) total += length;
    write_corpus(folder / "c", lengths);
    const auto samples =
        GptDataset::open(folder / "c", Split::kTrain, std::nullopt, std::nullopt,
                         {.sequence_length = 7, .seed = static_cast<uint32_t>(trial)});
    ASSERT_EQ(samples->size(), (total - 1) / 7);
    std::map<int64_t, int> seen;
    for (int64_t i = 0; i < samples->size(); ++i) {
      const Values tokens = read(*samples, i);
      for (size_t k = 1; k < tokens.size(); ++k) ++seen[tokens[k]];
    }
    EXPECT_EQ(static_cast<int64_t>(seen.size()), samples->size() * 7);
    for (const auto& [token, count] : seen) EXPECT_EQ(count, 1) << token;
  }
}

TEST(GptDataset, splits_share_no_document) {
  TemporaryFolder folder;
  write_corpus(folder / "c", std::vector<int32_t>(20, 9));
  std::map<int64_t, int> owner;
  for (const Split split : {Split::kTrain, Split::kValidation, Split::kTest}) {
    const auto samples =
        GptDataset::open(folder / "c", split, "10,5,5", std::nullopt, {.sequence_length = 4});
    for (int64_t i = 0; i < samples->size(); ++i) {
      for (const int64_t token : read(*samples, i)) {
        const auto [place, fresh] = owner.try_emplace(token / 1000, static_cast<int>(split));
        EXPECT_EQ(place->second, static_cast<int>(split)) << "document " << token / 1000;
      }
    }
  }
  EXPECT_EQ(owner.size(), 20u);
}

TEST(GptDataset, a_split_without_documents_says_what_to_do) {
  TemporaryFolder folder;
  write_corpus(folder / "c", {100});
  try {
    GptDataset::open(folder / "c", Split::kValidation, "969,30,1", 5, {.sequence_length = 4});
    FAIL() << "one document cannot be split";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("data.validation_path"), std::string::npos);
  }
}

TEST(GptDataset, the_fingerprint_tells_data_and_order_apart) {
  TemporaryFolder folder;
  const std::vector<int32_t> lengths = {5, 9, 3, 7};
  write_corpus(folder / "a", lengths);
  write_corpus(folder / "same", lengths);
  write_corpus(folder / "other", lengths, 1);
  const auto open = [&](const char* name, uint32_t seed, int64_t samples = 10) {
    return GptDataset::open(folder / name, Split::kTrain, std::nullopt, samples,
                            {.sequence_length = 4, .seed = seed})
        ->fingerprint();
  };
  EXPECT_EQ(open("a", 1), open("same", 1));
  EXPECT_FALSE(same_data(open("a", 1), open("other", 1)));
  EXPECT_FALSE(same_data(open("a", 1), open("a", 2)));
  EXPECT_TRUE(same_data(open("a", 1), open("a", 1, 100))) << "a longer run of the same data";
  EXPECT_NE(open("a", 1), open("a", 1, 100)) << "whose epochs are shuffled together";
}

TEST(Blend, samples_come_from_their_corpora) {
  TemporaryFolder folder;
  const std::vector<WeightedPath> corpora = {
      {write_corpus(folder / "a", std::vector<int32_t>(10, 9)).string(), 0.3},
      {write_corpus(folder / "b", std::vector<int32_t>(10, 9), 50).string(), 0.7}};
  const auto blend = open_blend(corpora, Split::kTrain, std::nullopt, 12, {.sequence_length = 4});
  ASSERT_EQ(blend->size(), 13);
  const Values expected = {1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1};
  for (int64_t i = 0; i < 13; ++i) {
    EXPECT_EQ(read(*blend, i)[0] >= 50000, expected[static_cast<size_t>(i)] == 1) << i;
  }
  EXPECT_NE(blend->origin(0).find("/b"), std::string::npos);
}

TEST(Blend, without_weights_each_corpus_gives_an_epoch) {
  TemporaryFolder folder;
  const std::vector<WeightedPath> corpora = {
      {write_corpus(folder / "a", {13}).string(), std::nullopt},
      {write_corpus(folder / "b", {9}, 50).string(), std::nullopt}};
  const auto all =
      open_blend(corpora, Split::kTrain, std::nullopt, std::nullopt, {.sequence_length = 4});
  EXPECT_EQ(all->size(), 5);
  const auto some = open_blend(corpora, Split::kTrain, std::nullopt, 3, {.sequence_length = 4});
  EXPECT_EQ(some->size(), 3);
  EXPECT_THROW(read(*some, 3), DataError);
}

}  // namespace
}  // namespace qianli::data
