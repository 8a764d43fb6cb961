#include "qianli/data/documents.h"
#include "qianli/data/unpacked.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include "qianli/base/error.h"
#include "qianli/data/numpy_random.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing::TemporaryFolder;
using Texts = std::vector<std::string>;

Texts documents(std::string_view content, DocumentKind kind, const DocumentRules& rules,
                uint64_t part_bytes) {
  Texts texts;
  uint64_t place = 0;
  for (const ByteRange range : cut_ranges(content, kind, rules, part_bytes)) {
    EXPECT_EQ(range.begin, place);
    place = range.end;
    for_each_document(content, range, kind, rules, "input",
                      [&](std::string_view text) { texts.emplace_back(text); });
  }
  EXPECT_EQ(place, content.size());
  return texts;
}

std::string failure(std::string_view content, DocumentKind kind = DocumentKind::kJsonLines) {
  try {
    documents(content, kind, {}, 1 << 20);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(Documents, kinds_follow_the_name_and_the_first_character) {
  EXPECT_EQ(kind_of("a/b.jsonl.gz", ""), DocumentKind::kJsonLines);
  EXPECT_EQ(kind_of("b.json", " \n[{}]"), DocumentKind::kJsonArray);
  EXPECT_EQ(kind_of("b.json", "{}"), DocumentKind::kJsonLines);
  EXPECT_EQ(kind_of("b.txt", "[1]"), DocumentKind::kPlainText);
  EXPECT_EQ(kind_of("README", ""), DocumentKind::kPlainText);
}

TEST(Documents, plain_text_is_one_document_byte_for_byte) {
  const std::string text = "\xEF\xBB\xBF one\r\n\ntwo \x80\n";
  EXPECT_EQ(documents(text, DocumentKind::kPlainText, {}, 1), Texts{text});
}

TEST(Documents, lines_of_json_in_any_dress) {
  const std::string text =
      "\xEF\xBB\xBF{\"text\": \"a\\n\\u00e9\"}\r\n\n  \n{\"x\": [1], \"text\": \"old\", \"text\": "
      "\"new\"}\n"
      "{\"text\": \"\"}";
  EXPECT_EQ(documents(text, DocumentKind::kJsonLines, {}, 1 << 20),
            (Texts{"a\n\xC3\xA9", "new", ""}));
}

TEST(Documents, arrays_of_json) {
  EXPECT_EQ(documents(R"([{"body": "a"}, {"body": "b"}])", DocumentKind::kJsonArray,
                      {.text_key = "body"}, 1),
            (Texts{"a", "b"}));
}

TEST(Documents, bad_records_are_named_with_their_line) {
  EXPECT_NE(failure("{\"text\": \"a\"}\n\n{\"text\": 5}\n")
                .find("input:3: expected a string under 'text'"),
            std::string::npos);
  EXPECT_NE(failure("{\"text\": \"a\"}\n{\"text\": \"a\n").find("input:2: "), std::string::npos);
  EXPECT_NE(failure("{\"content\": \"a\", \"id\": 1}")
                .find("input:1: expected the key 'text', got 'content', 'id'"),
            std::string::npos);
  EXPECT_NE(failure("[1]\n").find("input:1: expected a JSON object"), std::string::npos);
  EXPECT_NE(failure("{\"text\": \"\xFF\"}").find("input:1: "), std::string::npos);
  EXPECT_NE(failure("[{\"text\": \"a\"}, 7]", DocumentKind::kJsonArray).find("input: record 2"),
            std::string::npos);
}

TEST(Documents, frames_of_pretraining_handlers) {
  const auto text = [](const std::string& row, DocumentText kind) {
    return documents(row, DocumentKind::kJsonLines, {.text = kind}, 1 << 20).at(0);
  };
  const std::string asked =
      text(R"({"instruction": "I", "input": "Q", "output": "A"})", DocumentText::kAlpaca);
  EXPECT_TRUE(asked.starts_with("A chat between a curious user and an artificial intelligence"));
  EXPECT_TRUE(
      asked.ends_with("### Instruction:\nI\n\n### Input:\nQ\n\n### Response: ASSISTANT: A"));
  EXPECT_TRUE(text(R"({"instruction": "I", "input": "", "output": "A"})", DocumentText::kAlpaca)
                  .ends_with("### Instruction:\nI\n\n### Response: ASSISTANT: A"));
  EXPECT_EQ(text(R"({"conversations": [{"from": "human", "value": "a"}, {"value": "b"}]})",
                 DocumentText::kSharegpt),
            "ab");
  EXPECT_EQ(text(R"({"messages": [{"role": "user", "content": "c"}]})", DocumentText::kSharegpt),
            "c");
  EXPECT_EQ(text(R"({"title": "t", "question_body": "q", "answer_body": "a"})",
                 DocumentText::kStackOverflow),
            "In python, t\n### Question:\nq\n### Response:\na\n");
  EXPECT_THROW(text(R"({"conversations": [{"from": "human"}]})", DocumentText::kSharegpt),
               DataError);
  EXPECT_THROW(text("{}", DocumentText::kSharegpt), DataError);
  EXPECT_THROW(text(R"({"title": "t"})", DocumentText::kStackOverflow), DataError);
}

TEST(Documents, separators_split_and_vanish) {
  const DocumentRules rules{.separator = "\n\n"};
  EXPECT_EQ(documents("a\n\nb\n\n\nc\n\n", DocumentKind::kPlainText, rules, 1 << 20),
            (Texts{"a", "b", "\nc"}));
}

TEST(Documents, cutting_changes_nothing) {
  RandomState random(9);
  for (int trial = 0; trial < 300; ++trial) {
    std::string text;
    for (uint64_t i = random.draw(60); i > 0; --i) text += "\n\n\nab"[random.draw(4)];
    const DocumentRules rules{.separator = "\n\n"};
    const auto whole = documents(text, DocumentKind::kPlainText, rules, 1 << 20);
    EXPECT_EQ(documents(text, DocumentKind::kPlainText, rules, 1 + random.draw(20)), whole)
        << trial;
  }
  std::string lines;
  Texts expected;
  for (int i = 0; i < 50; ++i) {
    expected.push_back(std::string(static_cast<size_t>(i % 7), 'x'));
    lines += "{\"text\": \"" + expected.back() + "\"}\n";
  }
  for (uint64_t bytes = 1; bytes < 200; bytes += 13) {
    EXPECT_EQ(documents(lines, DocumentKind::kJsonLines, {}, bytes), expected);
  }
}

TEST(Gzip, is_unpacked_and_damage_is_noticed) {
  TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 20000; ++i) text += std::to_string(i * 7919) + "\n";
  gzFile file = gzopen((folder / "a.gz").c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  unpack(folder / "a.gz", folder / "a");
  EXPECT_EQ(read_file(folder / "a", FileRole::kData), text);
  std::string bytes = read_file(folder / "a.gz", FileRole::kData);
  for (const size_t length : {bytes.size() / 2, bytes.size() - 1, size_t{12}}) {
    write_file_atomically(folder / "b.gz", bytes.substr(0, length), FileRole::kData);
    EXPECT_THROW(unpack(folder / "b.gz", folder / "b"), DataError) << length;
    EXPECT_FALSE(fs::exists(folder / "b"));
  }
  bytes[bytes.size() / 2] ^= 0x10;
  write_file_atomically(folder / "b.gz", bytes, FileRole::kData);
  EXPECT_THROW(unpack(folder / "b.gz", folder / "b"), DataError);
}

}  // namespace
}  // namespace qianli::data
