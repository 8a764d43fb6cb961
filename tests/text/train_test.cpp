#include "qianli/text/train.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/text/tokenizer.h"
#include "tests/support/test_paths.h"

namespace qianli::text {
namespace {

using testing::TemporaryFolder;

std::string sample_text() {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += "the theatre of the other " + std::to_string(i * i) + ", l'été là-bas\n你好 世界!\n\n";
  }
  return text;
}

fs::path write(const TemporaryFolder& folder, const std::string& name, const std::string& text) {
  write_file_atomically(folder / name, text, FileRole::kData);
  return folder / name;
}

std::vector<std::pair<int, int>> pairs(const std::vector<TrainedMerge>& merges) {
  std::vector<std::pair<int, int>> result;
  for (const TrainedMerge& merge : merges) result.emplace_back(merge.left, merge.right);
  return result;
}

TEST(LearnMerges, takes_the_most_frequent_pair_and_then_the_smaller_ids) {
  const auto order = bytes_in_alphabet_order();
  const auto id = [&](char c) {
    return static_cast<int>(std::find(order.begin(), order.end(), static_cast<unsigned char>(c)) -
                            order.begin());
  };
  const WordCounts words = {{"ab", 5}, {"abc", 2}, {"bc", 3}, {"xy", 5}};
  // ab 7; then bc 3 + 0 and xy 5: xy; then bc 3; then (ab)c 2.
  EXPECT_EQ(pairs(learn_merges(words, 10, 2)),
            (std::vector<std::pair<int, int>>{
                {id('a'), id('b')}, {id('x'), id('y')}, {id('b'), id('c')}, {256, id('c')}}));
  EXPECT_EQ(learn_merges(words, 10, 6).size(), 1u);
  EXPECT_EQ(learn_merges(words, 2, 1).size(), 2u);
}

TEST(LearnMerges, counts_overlapping_pairs_within_a_run) {
  const WordCounts words = {{"aaaaa", 4}};
  const auto order = bytes_in_alphabet_order();
  const int a = static_cast<int>(std::find(order.begin(), order.end(), 'a') - order.begin());
  // aaaaa -> (aa)(aa)a: then "aa aa" and "aa a" stand once each, the smaller ids first.
  EXPECT_EQ(pairs(learn_merges(words, 10, 1)),
            (std::vector<std::pair<int, int>>{{a, a}, {256, a}, {256, 257}}));
}

TEST(Train, gives_the_same_files_for_any_number_of_threads) {
  const TemporaryFolder folder;
  std::string long_text;
  for (int i = 0; i < 60; ++i) long_text += sample_text();  // several chunks
  const fs::path files[] = {write(folder, "a.txt", long_text)};
  std::string first;
  for (const int threads : {1, 2, 5}) {
    const TrainOptions options{.vocab_size = 400, .threads = threads};
    train_byte_level_bpe(options, files, folder / "out");
    const auto json = read_file(folder.path() / "out" / "tokenizer.json", FileRole::kData);
    if (first.empty()) first = json;
    EXPECT_EQ(json, first) << threads;
  }
}

TEST(Train, counts_the_same_words_however_the_text_is_cut) {
  const TemporaryFolder folder;
  std::string long_text;
  while (long_text.size() < (size_t{3} << 20)) long_text += sample_text();
  for (const TrainPattern pattern : {TrainPattern::kGpt2, TrainPattern::kLlama3}) {
    const TrainOptions options{.pattern = pattern};
    int64_t bytes = 0;
    const fs::path whole[] = {write(folder, "whole.txt", long_text)};
    const auto counts = count_words(options, whole, bytes);
    EXPECT_EQ(bytes, static_cast<int64_t>(long_text.size()));
    // The same text in pieces below the chunk size, cut between a letter and a space.
    WordCounts summed;
    for (size_t begin = 0; begin < long_text.size();) {
      const size_t end =
          std::min(long_text.find("e theatre", begin + 200000), long_text.size() - 1) + 1;
      const fs::path part[] = {write(folder, "part.txt", long_text.substr(begin, end - begin))};
      for (const auto& [word, n] : count_words(options, part, bytes)) summed[word] += n;
      begin = end;
    }
    EXPECT_EQ(summed, counts);
  }
}

TEST(Train, writes_a_tokenizer_that_loads_and_decodes_exactly) {
  const TemporaryFolder folder;
  const fs::path files[] = {
      write(folder, "a.txt", sample_text()),
      write(folder, "b.jsonl",
            "{\"text\": \"zebra zebra zebra\"}\n\n{\"text\": \"zebra <pad>zebra\"}\n")};
  for (const TrainPattern pattern : {TrainPattern::kGpt2, TrainPattern::kLlama3}) {
    const TrainOptions options{
        .vocab_size = 350, .special_tokens = {"<s>", "</s>", "<pad>"}, .pattern = pattern};
    const auto report = train_byte_level_bpe(options, files, folder / "out");
    EXPECT_EQ(report.vocab_size, 350);
    const auto tokenizer = Tokenizer::load(folder / "out");
    EXPECT_EQ(tokenizer->vocab_size(), 350);
    EXPECT_EQ(tokenizer->bos_id(), 0);
    EXPECT_EQ(tokenizer->eos_id(), 1);
    EXPECT_EQ(tokenizer->pad_id(), 2);
    const std::string text = sample_text() + "<pad> anything \x01 else 😀";
    const auto ids = tokenizer->encode(text, true);
    EXPECT_EQ(tokenizer->decode(ids, false), text);
    EXPECT_LT(ids.size(), text.size() / 2);
    EXPECT_TRUE(tokenizer->id_of("\u0120the").has_value());
    EXPECT_FALSE(tokenizer->id_of("<p").has_value());  // special tokens are not learnt from
  }
}

TEST(Train, refuses_impossible_options_and_bad_lines) {
  const TemporaryFolder folder;
  const fs::path text[] = {write(folder, "a.txt", "aa bb")};
  const auto train = [&](TrainOptions options) {
    train_byte_level_bpe(options, text, folder / "out");
  };
  EXPECT_THROW(train({.vocab_size = 256}), ConfigError);
  EXPECT_THROW(train({.vocab_size = 300, .special_tokens = {"<s>", "<s>"}}), ConfigError);
  EXPECT_THROW(train({.vocab_size = 300, .special_tokens = {""}}), ConfigError);
  EXPECT_THROW(train({.vocab_size = 300, .special_tokens = {"a"}}), ConfigError);
  const fs::path lines[] = {write(folder, "b.jsonl", "{\"txt\": \"a\"}\n")};
  EXPECT_THROW(train_byte_level_bpe({.vocab_size = 300}, lines, folder / "out"), DataError);
  EXPECT_FALSE(fs::exists(folder / "out"));
}

}  // namespace
}  // namespace qianli::text
