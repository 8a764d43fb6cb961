#include "qianli/data/gpt_order.h"

#include <gtest/gtest.h>

#include <numeric>

#include "qianli/base/error.h"
#include "qianli/data/digest.h"
#include "qianli/data/numpy_random.h"

namespace qianli::data {
namespace {

using Values = std::vector<int64_t>;

Values values(const IndexArray& array) {
  Values result;
  for (int64_t i = 0; i < array.size(); ++i) result.push_back(array[i]);
  return result;
}

Values shuffled_ten(RandomState& random) {
  Values ten(10);
  std::iota(ten.begin(), ten.end(), 0);
  random.shuffle(std::span<int64_t>(ten));
  return ten;
}

// The corpus of the published small table.
const std::vector<int32_t> kTenDocuments = {5, 9, 3, 7, 6, 4, 8, 2, 10, 6};

GptOrder order_of(std::string_view split, Split which, std::optional<int64_t> samples,
                  bool drop_last_partial = true) {
  const auto fraction = parse_split(split)[static_cast<size_t>(which)];
  return build_gpt_order({.lengths = kTenDocuments,
                          .range = sequences_of(*fraction, 10),
                          .sequence_length = 8,
                          .num_samples = samples,
                          .seed = 1234,
                          .drop_last_partial = drop_last_partial});
}

TEST(NumpyRandom, shuffle_equals_numpy) {
  RandomState first(1234), second(42);
  EXPECT_EQ(shuffled_ten(first), (Values{7, 2, 9, 1, 0, 8, 4, 5, 6, 3}));
  EXPECT_EQ(shuffled_ten(first), (Values{7, 3, 5, 1, 4, 8, 0, 2, 6, 9}));
  EXPECT_EQ(shuffled_ten(second), (Values{8, 1, 5, 0, 7, 2, 9, 4, 3, 6}));
  EXPECT_EQ(shuffled_ten(second), (Values{0, 1, 8, 5, 3, 4, 7, 9, 6, 2}));
}

TEST(NumpyRandom, wide_draws_take_two_words_high_word_first) {
  // From the published first outputs of seed 1234: 822569775, 2137449171.
  RandomState random(1234);
  EXPECT_EQ(random.draw(~uint64_t{0}), uint64_t{822569775} << 32 | 2137449171u);
}

TEST(Split, is_normalised_and_empty_parts_are_absent) {
  const auto usual = parse_split("949,50,1");
  EXPECT_DOUBLE_EQ(usual[0]->end, 0.949);
  EXPECT_DOUBLE_EQ(usual[1]->end, 0.999);
  EXPECT_DOUBLE_EQ(usual[2]->end, 1.0);
  const auto two = parse_split("99,1");
  EXPECT_DOUBLE_EQ(two[0]->end, 0.99);
  EXPECT_TRUE(two[1].has_value());
  EXPECT_FALSE(two[2].has_value());
  const auto middle = parse_split("0,100,0");
  EXPECT_FALSE(middle[0].has_value());
  EXPECT_DOUBLE_EQ(middle[1]->begin, 0.0);
  EXPECT_DOUBLE_EQ(middle[1]->end, 1.0);
  EXPECT_FALSE(middle[2].has_value());
  EXPECT_DOUBLE_EQ(parse_split("0.98/0.01/0.01")[0]->end, 0.98);
}

TEST(Split, senseless_texts_are_refused) {
  for (const char* text : {"", "a", "1,2,3,4", "0,0,0", "1.2.3"}) {
    EXPECT_THROW(parse_split(text), ConfigError) << text;
  }
}

TEST(GptOrder, one_epoch_equals_the_reference) {
  const auto order = order_of("100,0,0", Split::kTrain, 5);
  EXPECT_EQ(values(order.document), (Values{7, 2, 9, 1, 0, 8, 4, 5, 6, 3}));
  EXPECT_EQ(values(order.sample), (Values{0, 0, 2, 3, 3, 5, 4, 4, 5, 7, 6, 5, 8, 3, 9, 3}));
  EXPECT_EQ(values(order.shuffle), (Values{6, 4, 0, 5, 3, 2, 1}));
}

TEST(GptOrder, two_epochs_in_one_shuffle_equal_the_reference) {
  const auto order = order_of("100,0,0", Split::kTrain, 14);
  EXPECT_EQ(values(order.document),
            (Values{3, 3, 2, 6, 4, 5, 4, 0, 8, 8, 7, 1, 0, 9, 7, 1, 9, 2, 6, 5}));
  EXPECT_EQ(values(order.sample), (Values{0, 0, 1, 1,  2, 2,  3, 7,  5, 1,  6, 5,  8, 2,  9,
                                          0, 9, 8, 11, 4, 12, 3, 14, 0, 15, 6, 16, 5, 18, 4}));
  EXPECT_EQ(values(order.shuffle), (Values{7, 10, 4, 1, 12, 8, 3, 9, 6, 13, 5, 11, 0, 2}));
}

TEST(GptOrder, splits_equal_the_reference) {
  const auto train = order_of("6,2,2", Split::kTrain, 5);
  EXPECT_EQ(values(train.document), (Values{2, 1, 5, 0, 4, 3, 0, 4, 3, 2, 5, 1}));
  EXPECT_EQ(values(train.sample), (Values{0, 0, 1, 5, 3, 0, 4, 3, 5, 5, 7, 1, 8, 3, 10, 1, 11, 5}));
  EXPECT_EQ(values(train.shuffle), (Values{1, 3, 0, 2, 5, 4, 7, 6}));
  const auto valid = order_of("6,2,2", Split::kValidation, 2);
  EXPECT_EQ(values(valid.document), (Values{6, 7, 6, 7}));
  EXPECT_EQ(values(valid.sample), (Values{0, 0, 1, 0, 2, 6}));
  EXPECT_EQ(values(valid.shuffle), (Values{1, 0}));
  const auto test = order_of("6,2,2", Split::kTest, 1);
  EXPECT_EQ(values(test.document), (Values{8, 9}));
  EXPECT_EQ(values(test.sample), (Values{0, 0, 0, 8}));
  EXPECT_EQ(values(test.shuffle), (Values{0}));
}

TEST(GptOrder, a_partial_last_validation_sample_is_kept_on_request) {
  const auto order = order_of("6,2,2", Split::kValidation, std::nullopt, false);
  EXPECT_EQ(values(order.document), (Values{6, 7}));
  EXPECT_EQ(values(order.sample), (Values{0, 0, 1, 0, 1, 1}));
  EXPECT_EQ(values(order.shuffle), (Values{0, 1}));
}

TEST(GptOrder, a_separate_last_epoch_is_shuffled_by_itself) {
  const std::vector<int32_t> lengths = {5, 3, 7};
  const auto order = build_gpt_order(
      {.lengths = lengths, .range = {0, 3}, .sequence_length = 4, .num_samples = 8});
  EXPECT_EQ(values(order.document), (Values{2, 1, 2, 0, 1, 0, 0, 2, 1}));
  EXPECT_EQ(values(order.sample),
            (Values{0, 0, 0, 4, 1, 1, 2, 2, 2, 6, 3, 3, 4, 2, 5, 3, 6, 2, 7, 1, 7, 5, 8, 2}));
  EXPECT_EQ(values(order.shuffle), (Values{6, 4, 0, 5, 3, 2, 1, 8, 7, 10, 9}));
}

struct LargeCase {
  uint32_t seed;
  const char* split;
  int64_t sequence_length;
  Split which;
  int64_t samples;
  int64_t rows;
  const char* document;
  const char* sample;
  const char* shuffle;
};

// 5000 sequences of length 1 + (i * 7919 mod 97); digests of the little-endian arrays as NumPy and
// Megatron's own index builder make them.
const LargeCase kLargeCases[] = {
    {1234, "949,50,1", 64, Split::kTrain, 12000, 14532, "3fc9dd4b1de5c16b5f2077e99305f3ad",
     "37e84ddfbdffceeb721a342f0bfca579", "5eba4afb5b0c32e25100f21358528e8e"},
    {1234, "949,50,1", 64, Split::kValidation, 100, 191, "d9d2bc539ec57241a64c3dba70d20854",
     "778a022856dcddcc34d22736d2a721d0", "5e0ec4bea2570eec85a307b32c685cb7"},
    {1234, "949,50,1", 64, Split::kTest, 10, 13, "80002e2867fd7cbbbcabf908d4997211",
     "a7300181d59441edf8b9cbdb0422ea87", "13b322ec2731904cde36bb1c3e12142b"},
    {42, "98,1,1", 64, Split::kTrain, 3000, 3751, "7bf8d6d3b61ea1108958469324d177fc",
     "0a1c8a70d0d0359b9eb4534f03fb8987", "30f7f77c1920e7f24c292130a2088f50"},
    {42, "98,1,1", 64, Split::kValidation, 40, 78, "0fc2cd22eebbb9400043511a7ade76b1",
     "bd1f298858d74ed9ab7925c7617f6384", "1b3d830c965fe4aacce8ec953c0c41bf"},
    {7, "90,5,5", 32, Split::kTrain, 20000, 20668, "00d1b67e538ffe6af3b57fbb47097c5c",
     "342f58900e57aba69716ca357af19669", "dda92644e435f895d853331ab6ed74c2"},
    {7, "90,5,5", 32, Split::kValidation, 10, 386, "59b141cbffa63fd3c5f4bbedfd3a1c10",
     "6aa753b8a13e1eed56a3a91610771703", "3678688cdc9a6ab9a584e5a8ad61a9bf"},
};

TEST(GptOrder, large_orders_equal_the_reference_byte_for_byte) {
  std::vector<int32_t> lengths;
  for (int32_t i = 0; i < 5000; ++i) lengths.push_back(1 + i * 7919 % 97);
  for (const LargeCase& c : kLargeCases) {
    const auto fraction = parse_split(c.split)[static_cast<size_t>(c.which)];
    const auto order = build_gpt_order({.lengths = lengths,
                                        .range = sequences_of(*fraction, 5000),
                                        .sequence_length = c.sequence_length,
                                        .num_samples = c.samples,
                                        .seed = c.seed});
    SCOPED_TRACE(c.document);
    EXPECT_EQ(order.sample.rows(), c.rows);
    EXPECT_EQ(md5_hex(order.document.bytes()), c.document);
    EXPECT_EQ(md5_hex(order.sample.bytes()), c.sample);
    EXPECT_EQ(md5_hex(order.shuffle.bytes()), c.shuffle);
  }
}

// Every sample but the overlapping token is read exactly once: samples tile the document order.
TEST(GptOrder, samples_tile_the_corpus) {
  RandomState random(5);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<int32_t> lengths;
    const auto documents = static_cast<int32_t>(1 + random.draw(19));
    for (int32_t i = 0; i < documents; ++i)
      lengths.push_back(static_cast<int32_t>(random.draw(12)));
    lengths.push_back(3);
    const auto sequence_length = static_cast<int64_t>(1 + random.draw(15));
    const bool extra = trial % 2 == 0;
    const auto order = build_gpt_order({.lengths = lengths,
                                        .range = {0, static_cast<int64_t>(lengths.size())},
                                        .sequence_length = sequence_length,
                                        .num_samples = static_cast<int64_t>(1 + random.draw(40)),
                                        .seed = static_cast<uint32_t>(trial),
                                        .extra_token = extra});
    std::vector<int64_t> starts = {0};  // running number of tokens before each place
    for (int64_t i = 0; i < order.document.size(); ++i) {
      starts.push_back(starts.back() + lengths[static_cast<size_t>(order.document[i])]);
    }
    for (int64_t row = 0; row < order.sample.rows(); ++row) {
      const auto place = static_cast<size_t>(order.sample[2 * row]);
      ASSERT_EQ(starts[place] + order.sample[2 * row + 1], row * sequence_length) << trial;
    }
    auto rows = values(order.shuffle);
    std::sort(rows.begin(), rows.end());
    for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(rows[i], static_cast<int64_t>(i));
  }
}

TEST(GptOrder, an_empty_split_is_an_error_that_says_so) {
  const std::vector<int32_t> lengths = {0, 0};
  EXPECT_THROW(build_gpt_order({.lengths = lengths, .range = {0, 2}, .sequence_length = 4}),
               DataError);
}

}  // namespace
}  // namespace qianli::data
