#include "qianli/data/order_cache.h"

#include <gtest/gtest.h>

#include "qianli/data/digest.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing::TemporaryFolder;

const std::vector<int32_t> kLengths = {5, 9, 3, 7, 6, 4, 8, 2, 10, 6};

OrderIdentity identity() {
  return {.dataset_path = "a",
          .num_samples = 5,
          .split = Split::kTrain,
          .seed = 1234,
          .sequence_length = 8,
          .split_text = "100,0,0",
          .tokenizer = {{"class", "Tok"}}};
}

GptOrderRequest request(const std::vector<int32_t>& lengths = kLengths) {
  return {
      .lengths = lengths, .range = {0, 10}, .sequence_length = 8, .num_samples = 5, .seed = 1234};
}

std::string bytes_of(const GptOrder& order) {
  std::string all;
  for (const IndexArray* array : {&order.document, &order.sample, &order.shuffle})
    all += xxh3_hex(array->bytes());
  return all;
}

TEST(OrderCache, the_description_hashes_as_in_the_reference) {
  EXPECT_EQ(md5_hex(describe(identity())), "360c3ac5469e0abf68222e8966b95ef5");
}

TEST(OrderCache, the_description_is_what_python_writes) {
  auto other = identity();
  other.dataset_path = "\xC3\xA9\"";
  other.num_samples = std::nullopt;
  other.split = Split::kValidation;
  other.split_text = "99,1";
  other.tokenizer = {{"class", "A"}, {"tokenizer_path", Json::array({"x"})}, {"o", Json::object()}};
  EXPECT_EQ(describe(other), R"({
    "class": "GPTDataset",
    "dataset_path": "\u00e9\"",
    "num_samples": null,
    "index_split": "valid",
    "random_seed": 1234,
    "sequence_length": 8,
    "split": "99,1",
    "split_matrix": [
        [
            0,
            0.99
        ],
        [
            0.99,
            1.0
        ],
        null
    ],
    "tokenizer": {
        "class": "A",
        "tokenizer_path": [
            "x"
        ],
        "o": {}
    }
})");
}

class OrderCacheFiles : public ::testing::Test {
 protected:
  fs::path file(const std::string& suffix) const {
    return folder_ / ("360c3ac5469e0abf68222e8966b95ef5-GPTDataset-train-" + suffix);
  }
  GptOrder open() const { return cached_gpt_order(folder_.path(), identity(), request()); }
  TemporaryFolder folder_;
  const std::string expected_ = bytes_of(build_gpt_order(request()));
};

TEST_F(OrderCacheFiles, is_written_once_and_then_read) {
  EXPECT_EQ(bytes_of(open()), expected_);
  const auto written = fs::last_write_time(file("shuffle_index.npy"));
  EXPECT_EQ(bytes_of(open()), expected_);
  EXPECT_EQ(fs::last_write_time(file("shuffle_index.npy")), written);
}

TEST_F(OrderCacheFiles, names_without_the_split_are_read) {
  open();
  for (const char* suffix :
       {"description.txt", "document_index.npy", "sample_index.npy", "shuffle_index.npy"}) {
    fs::rename(file(suffix),
               folder_ / (std::string("360c3ac5469e0abf68222e8966b95ef5-GPTDataset-") + suffix));
  }
  EXPECT_EQ(bytes_of(open()), expected_);
  EXPECT_FALSE(fs::exists(file("shuffle_index.npy")));
}

TEST_F(OrderCacheFiles, any_damaged_file_is_rebuilt) {
  for (const char* suffix : {"description.txt", "document_index.npy", "sample_index.npy",
                             "shuffle_index.npy", "checksums.json"}) {
    open();
    const std::string good = read_file(file(suffix), FileRole::kData);
    for (const size_t place : {size_t{0}, good.size() / 2, good.size() - 1}) {
      std::string bad = good;
      bad[place] ^= 1;
      write_file_atomically(file(suffix), bad, FileRole::kData);
      EXPECT_EQ(bytes_of(open()), expected_) << suffix << " at " << place;
      EXPECT_EQ(bytes_of(cached_gpt_order(folder_.path(), identity(), request())), expected_);
    }
    write_file_atomically(file(suffix), good.substr(0, good.size() / 2), FileRole::kData);
    EXPECT_EQ(bytes_of(open()), expected_) << suffix;
    EXPECT_EQ(read_file(file(suffix), FileRole::kData), good) << suffix;
  }
}

TEST_F(OrderCacheFiles, other_lengths_under_the_same_name_are_noticed) {
  open();
  const std::vector<int32_t> swapped = {9, 5, 3, 7, 6, 4, 8, 2, 10, 6};
  const auto order = cached_gpt_order(folder_.path(), identity(), request(swapped));
  EXPECT_EQ(bytes_of(order), bytes_of(build_gpt_order(request(swapped))));
}

TEST_F(OrderCacheFiles, a_folder_that_cannot_be_made_costs_only_the_cache) {
  write_file_atomically(folder_ / "file", "x", FileRole::kData);
  const auto order = cached_gpt_order(folder_ / "file" / "cache", identity(), request());
  EXPECT_EQ(bytes_of(order), expected_);
}

}  // namespace
}  // namespace qianli::data
