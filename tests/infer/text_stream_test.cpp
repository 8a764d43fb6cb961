#include "qianli/infer/text_stream.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/base/error.h"

namespace qianli::infer {
namespace {

// One id for every byte: those of "é" are two tokens.
std::shared_ptr<const text::Tokenizer> bytes() {
  std::string vocabulary;
  const auto add = [&](const std::string& token) {
    vocabulary += (vocabulary.empty() ? "\"" : ", \"") + token +
                  "\": " + std::to_string(std::ranges::count(vocabulary, ':'));
  };
  for (char c = 'a'; c <= 'z'; ++c) add(std::string(1, c));
  add("Ã");  // 0xC3 and 0xA9 as GPT-2 writes bytes
  add("©");
  return text::Tokenizer::from_json(
      R"({"version": "1.0", "added_tokens": [], "normalizer": null,
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
      "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
      "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": {)" +
          vocabulary + R"(}, "merges": []}})",
      "test");
}

int64_t id_of(char c) { return c - 'a'; }

// What each letter gives, parts joined by |.
std::string pieces(TextStream& stream, const std::string& letters) {
  std::string all;
  for (const char c : letters) all += stream.push(id_of(c)) + "|";
  return all + stream.finish();
}

TEST(TextStream, holds_back_what_may_become_a_stop_string) {
  TextStream stream(bytes(), {"stop", "top"});
  EXPECT_EQ(pieces(stream, "asxst"), "a||sx|||st");
  TextStream other(bytes(), {"stop"});
  EXPECT_EQ(pieces(other, "abstopc"), "a|b||||||");
  EXPECT_TRUE(other.stopped());
  TextStream earliest(bytes(), {"cd", "bcd"});
  EXPECT_EQ(pieces(earliest, "abcd"), "a||||");
}

TEST(TextStream, holds_back_half_a_character) {
  TextStream stream(bytes(), {});
  EXPECT_EQ(stream.push(26), "");
  EXPECT_EQ(stream.push(27), "é");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_FALSE(stream.stopped());
}

TEST(TextStream, refuses_empty_stop_strings) {
  EXPECT_THROW(TextStream(bytes(), {""}), ConfigError);
}

}  // namespace
}  // namespace qianli::infer
