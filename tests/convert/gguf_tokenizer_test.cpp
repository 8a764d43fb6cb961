// Tokenizers that went through a GGUF file give the same ids.
#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/convert/gguf/tokenizer.h"
#include "qianli/text/tokenizer.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using model::CompanionFile;

constexpr const char* kTexts[] = {
    "A journey of a thousand li begins with a single step.",
    "千里之行，始於足下。 12345 3.14\n\n  two  spaces\tand a tab",
    "don't <s> stop</s> \U0001F680 naïve café I'LL x_y == z;",
};

void write(const fs::path& folder, const std::vector<CompanionFile>& files) {
  fs::create_directories(folder);
  for (const CompanionFile& file : files) {
    write_file_atomically(folder / file.name, file.bytes, FileRole::kData);
  }
}

// The files that come back from the keys of `files` without tokenizer.huggingface.json, unless it
// is wanted.
std::vector<CompanionFile> through_gguf(const std::vector<CompanionFile>& files, int64_t vocab_size,
                                        bool whole, const fs::path& path) {
  auto metadata = tokenizer_metadata(files, vocab_size);
  if (!whole) {
    std::erase_if(metadata, [](const auto& e) { return e.first == "tokenizer.huggingface.json"; });
  }
  formats::write_gguf(path, metadata, {}, {});
  return tokenizer_files(*formats::GgufFile::open(path));
}

void expect_same_ids(const fs::path& before, const fs::path& after) {
  const auto expected = text::Tokenizer::load(before), found = text::Tokenizer::load(after);
  for (const char* text : kTexts) {
    const auto ids = expected->encode(text, false);
    EXPECT_EQ(ids, found->encode(text, false)) << text;
    EXPECT_EQ(expected->decode(ids, false), found->decode(ids, false)) << text;
  }
}

// Byte-level BPE of all bytes and a few merges, cutting words as `steps` say.
std::string byte_level_file(const WordRule& rule) {
  const auto path = testing::source_path("tests/golden/tokenizer/files/falcon/tokenizer.json");
  Json json = read_json(path, FileRole::kData);
  Json steps = Json::array();
  for (const std::string_view step : rule.steps) {
    if (step == "Digits") {
      steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    } else if (step == "ByteLevel" || step == "Bytes") {
      steps.push_back({{"type", "ByteLevel"},
                       {"add_prefix_space", false},
                       {"trim_offsets", true},
                       {"use_regex", step == "ByteLevel"}});
    } else {
      steps.push_back({{"type", "Split"},
                       {"pattern", {{"Regex", step}}},
                       {"behavior", "Isolated"},
                       {"invert", false}});
    }
  }
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", steps}};
  json["normalizer"] = rule.nfc ? Json::object({{"type", "NFC"}}) : Json();
  json["model"]["ignore_merges"] = rule.ignore_merges;
  return json.dump();
}

TEST(GgufTokenizer, comes_back_by_the_name_of_its_rule) {
  for (const WordRule& rule : word_rules()) {
    const testing::TemporaryFolder folder;
    const std::vector<CompanionFile> files{{"tokenizer.json", byte_level_file(rule)}};
    write(folder / "before", files);
    const auto size = text::Tokenizer::load(folder / "before")->vocab_size();
    write(folder / "after", through_gguf(files, size + 3, false, folder / "t.gguf"));
    SCOPED_TRACE(rule.names.front());
    expect_same_ids(folder / "before", folder / "after");
  }
}

// As SmolLM2 has them: the added tokens are the first of the vocabulary.
TEST(GgufTokenizer, added_tokens_before_others_keep_their_numbers) {
  const testing::TemporaryFolder folder;
  Json json = parse_json(byte_level_file(word_rules().front()), "tokenizer", FileRole::kData);
  Json& vocabulary = json["model"]["vocab"];
  for (auto& [token, id] : vocabulary.items()) id = id.get<int64_t>() + 2;
  vocabulary["<|end|>"] = 0;
  vocabulary["<|start|>"] = 1;
  for (Json& token : json["added_tokens"]) token["id"] = token["id"].get<int64_t>() + 2;
  for (const char* name : {"<|end|>", "<|start|>"}) {
    json["added_tokens"].push_back({{"id", vocabulary[name]},
                                    {"content", name},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", true}});
  }
  const std::vector<CompanionFile> files{{"tokenizer.json", json.dump()}};
  write(folder / "before", files);
  const auto before = text::Tokenizer::load(folder / "before");
  write(folder / "after", through_gguf(files, before->vocab_size(), false, folder / "t.gguf"));
  expect_same_ids(folder / "before", folder / "after");
  const auto after = text::Tokenizer::load(folder / "after");
  EXPECT_EQ(after->encode("<|start|>a<|end|>", false), before->encode("<|start|>a<|end|>", false));
  EXPECT_EQ(after->encode("<|start|>", false).front(), 1);
}

TEST(GgufTokenizer, comes_back_whole) {
  const testing::TemporaryFolder folder;
  const auto files = std::vector<CompanionFile>{
      {"tokenizer.json", byte_level_file(word_rules().front())},
      {"tokenizer_config.json", R"({"chat_template": "{{ messages }}", "add_bos_token": false})"}};
  const auto back = through_gguf(files, 70000, true, folder / "t.gguf");
  ASSERT_EQ(back.size(), 2u);
  EXPECT_EQ(back[0].bytes, files[0].bytes);
  const Json config = parse_json(back[1].bytes, "config", FileRole::kData);
  EXPECT_EQ(config.at("chat_template"), "{{ messages }}");
  EXPECT_EQ(config.at("add_bos_token"), false);
}

TEST(GgufTokenizer, of_sentencepiece_comes_back_by_its_scores) {
  for (const char* name : {"sp_llama", "sp_gemma"}) {
    const testing::TemporaryFolder folder;
    const fs::path source = testing::source_path("tests/golden/tokenizer/files") / name;
    auto files = model::read_companion_files(source);
    files.push_back({"tokenizer_config.json", R"({"added_tokens_decoder": {
      "1": {"content": "<s>", "special": true}, "2": {"content": "</s>", "special": true}}})"});
    write(folder / "before", files);
    const auto size = text::Tokenizer::load(folder / "before")->vocab_size();
    const auto back = through_gguf(files, size, false, folder / "t.gguf");
    ASSERT_EQ(back.front().name, "tokenizer.model");
    write(folder / "after", back);
    SCOPED_TRACE(name);
    expect_same_ids(folder / "before", folder / "after");
  }
}

TEST(GgufTokenizer, of_other_kinds_is_left_out) {
  const testing::TemporaryFolder folder;
  const auto files =
      model::read_companion_files(testing::source_path("tests/golden/tokenizer/files/bert"));
  EXPECT_TRUE(tokenizer_metadata(files, 100).empty());
  EXPECT_THROW(tokenizer_metadata({{"tokenizer.json", R"({"model": {"type": "BPE"}})"}}, 10),
               DataError);
  EXPECT_THROW(tokenizer_metadata({{"tokenizer.json", "[]"}}, 10), DataError);
}

}  // namespace
}  // namespace qianli::convert
