#include "qianli/data/pretrain_data.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/formats/indexed_dataset.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing::TemporaryFolder;
using Values = std::vector<int64_t>;

// The characters that stand for bytes in byte-level BPE: themselves where printable, else from
// U+0100.
std::string byte_character(int byte) {
  const auto utf8 = [](int point) {
    if (point < 0x80) return std::string(1, static_cast<char>(point));
    return std::string{static_cast<char>(0xC0 | point >> 6),
                       static_cast<char>(0x80 | (point & 0x3F))};
  };
  int spare = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool plain = (b >= 33 && b < 127) || (b >= 161 && b < 173) || b >= 174;
    const int point = plain ? b : spare++;
    if (b == byte) return utf8(point);
  }
  return "";
}

// One token per byte; token 256 is `end`.
std::shared_ptr<const text::Tokenizer> byte_tokenizer(const std::string& end = "<end>") {
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", false}};
  Json vocab = Json::object();
  for (int b = 0; b < 256; ++b) vocab[byte_character(b)] = b;
  const Json json = {
      {"version", "1.0"},
      {"added_tokens", Json::array({{{"id", 256}, {"content", end}, {"special", true}}})},
      {"pre_tokenizer", byte_level},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
  text::TokenizerConfig config;
  config.eos_token = end;
  return text::Tokenizer::from_json(json.dump(), "test", config);
}

class PretrainFiles : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) {
    write_file_atomically(folder_ / name, text, FileRole::kData);
  }
  config::DataConfig data(const std::vector<std::string>& names,
                          int64_t sequence_length = 4) const {
    config::DataConfig config;
    for (const std::string& name : names) config.path.push_back({(folder_ / name).string(), 1.0});
    config.sequence_length = sequence_length;
    config.split = "1";
    return config;
  }
  PretrainData open(const config::DataConfig& config, SampleCounts counts = {.train = 3}) const {
    return open_pretrain_data(config, tokenizer_, folder_ / "cache", counts);
  }
  static std::string text_of(const SampleSet& samples, int64_t index) {
    Values tokens(static_cast<size_t>(samples.sample_length()));
    samples.read(index, tokens);
    std::string text;
    for (const int64_t token : tokens) text += token == 256 ? '|' : static_cast<char>(token);
    return text;
  }
  TemporaryFolder folder_;
  std::shared_ptr<const text::Tokenizer> tokenizer_ = byte_tokenizer();
};

TEST_F(PretrainFiles, text_is_prepared_on_first_use_and_reused) {
  write("a.txt", "abcdefghijkl");
  const auto first = open(data({"a.txt"}));
  EXPECT_EQ(first.train->size(), 3);
  EXPECT_EQ(first.masks.eod, 256);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder_ / "cache/prepared"))
    files.push_back(entry.path());
  ASSERT_EQ(files.size(), 3u);
  const auto written = fs::last_write_time(files[0]);
  const auto second = open(data({"a.txt"}));
  EXPECT_EQ(second.train->fingerprint(), first.train->fingerprint());
  EXPECT_EQ(fs::last_write_time(files[0]), written);
}

TEST_F(PretrainFiles, changed_text_of_the_same_size_is_prepared_again) {
  write("a.txt", "abcdefghijkl");
  const auto before = open(data({"a.txt"})).train->fingerprint();
  const auto time = fs::last_write_time(folder_ / "a.txt");
  write("a.txt", "abcdefghijkL");
  fs::last_write_time(folder_ / "a.txt", time);
  const auto after = open(data({"a.txt"}));
  EXPECT_NE(after.train->fingerprint(), before);
  std::string all;
  for (int64_t i = 0; i < 3; ++i) all += text_of(*after.train, i);
  EXPECT_NE(all.find('L'), std::string::npos);
}

TEST_F(PretrainFiles, a_damaged_cache_is_prepared_again) {
  write("a.txt", "abcdefghijkl");
  const auto good = open(data({"a.txt"})).train->fingerprint();
  for (const auto& entry : fs::directory_iterator(folder_ / "cache/prepared")) {
    const std::string bytes = read_file(entry.path(), FileRole::kData);
    write_file_atomically(entry.path(), bytes.substr(0, bytes.size() - 2), FileRole::kData);
    EXPECT_EQ(open(data({"a.txt"})).train->fingerprint(), good) << entry.path();
  }
}

TEST_F(PretrainFiles, several_sources_are_blended_by_weight) {
  write("a.txt", std::string(100, 'a'));
  write("b.jsonl", "{\"text\": \"" + std::string(100, 'b') + "\"}\n");
  auto config = data({"a.txt", "b.jsonl"});
  config.path[1].weight = 3;
  const auto opened = open(config, {.train = 40});
  int from_b = 0;
  for (int64_t i = 0; i < 40; ++i)
    from_b += text_of(*opened.train, i).find('b') != std::string::npos;
  EXPECT_EQ(from_b, 30);
}

TEST_F(PretrainFiles, validation_has_a_path_of_its_own_or_a_share) {
  write("a.txt", "abcdefghijkl");
  write("v.txt", "nopqrstuvwxyz");
  auto config = data({"a.txt"});
  config.validation_path = (folder_ / "v.txt").string();
  const auto opened = open(config, {.train = 3, .validation = 2});
  EXPECT_GE(text_of(*opened.validation, 0)[0], 'n');
  config.validation_path.reset();
  EXPECT_THROW(open(config, {.train = 3, .validation = 2}), DataError);
  EXPECT_EQ(open(config).validation, nullptr);
}

TEST_F(PretrainFiles, a_prefix_needs_no_tokenizer_but_disagreeing_ones_are_noticed) {
  write("a.txt", "abcdefghijkl");
  const auto prefix = (folder_ / "p").string();
  prepare_corpus(prefix, {.inputs = {folder_ / "a.txt"}}, document_encoder(tokenizer_));
  const auto opened = open_pretrain_data(data({"p"}), nullptr, folder_ / "cache", {.train = 3});
  EXPECT_EQ(opened.masks.eod, 256);
  EXPECT_NO_THROW(open(data({"p"})));
  EXPECT_THROW(
      open_pretrain_data(data({"p"}), byte_tokenizer("<stop>"), folder_ / "cache", {.train = 3}),
      DataError);
}

TEST_F(PretrainFiles, wrong_paths_say_what_is_expected) {
  write("a.txt", "abcdefghijkl");
  EXPECT_THROW(open(data({"absent"})), DataError);
  EXPECT_THROW(open_pretrain_data(data({"a.txt"}), nullptr, folder_ / "cache", {.train = 3}),
               ConfigError);
  prepare_corpus(folder_ / "p", {.inputs = {folder_ / "a.txt"}}, document_encoder(tokenizer_));
  EXPECT_THROW(open(data({"p.bin"})), ConfigError);
  fs::remove(folder_ / "p.idx");
  EXPECT_THROW(open(data({"p"})), DataError);
}

TEST_F(PretrainFiles, masks_without_an_end_of_document_are_refused) {
  formats::IndexedDatasetWriter writer(folder_ / "p");
  writer.add_item(std::vector<int32_t>(50, 7));
  writer.end_document();
  writer.commit();
  auto config = data({"p"});
  config.eod_mask_loss = true;
  EXPECT_THROW(open_pretrain_data(config, nullptr, folder_ / "cache", {.train = 3}), ConfigError);
  EXPECT_TRUE(open(config).masks.eod_mask_loss);
}

TEST(SampleCounts, follow_the_number_of_evaluations) {
  config::TrainConfig train;
  train.steps = 100;
  train.micro_batch_size = 2;
  train.global_batch_size = 8;
  EXPECT_EQ(sample_counts(train).train, 800);
  EXPECT_EQ(sample_counts(train).validation, 0);
  train.eval_every = 30;
  train.eval_batches = 5;
  EXPECT_EQ(sample_counts(train).validation, 4 * 5 * 8);
}

// Ids of a whole text do not depend on how the work is cut: the tokenizer sees each document whole.
TEST(PreparedText, real_text_equals_the_tokenizer) {
  QIANLI_REQUIRE_DATA(folder, "tokenizers/qwen3");
  QIANLI_REQUIRE_DATA(input, "pretrain/c4_demo.jsonl");
  TemporaryFolder out;
  const auto tokenizer = text::Tokenizer::load(folder);
  prepare_corpus(out / "c4", {.inputs = {input}, .threads = 2, .part_bytes = 50000},
                 document_encoder(tokenizer));
  const auto corpus = formats::IndexedDataset::open(out / "c4");
  ASSERT_EQ(corpus.size(), 300u);
  const std::string text = read_file(input, FileRole::kData);
  size_t line = 0, i = 0;
  for (; line < text.size(); ++i) {
    const size_t end = std::min(text.find('\n', line), text.size());
    const Json record = Json::parse(text.substr(line, end - line));
    auto expected = tokenizer->encode(record.at("text").get<std::string>(), true);
    expected.push_back(*tokenizer->eos_id());
    std::vector<int32_t> got(static_cast<size_t>(corpus.lengths()[i]));
    corpus.sequence(i, 0, got);
    ASSERT_EQ(got, expected) << "document " << i;
    line = end + 1;
  }
  EXPECT_EQ(i, 300u);
}

}  // namespace
}  // namespace qianli::data
