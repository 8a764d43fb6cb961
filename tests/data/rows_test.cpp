#include "qianli/data/instruction/rows.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing::TemporaryFolder;
using Texts = std::vector<std::string>;

// Every row as "line: JSON", bad ones as "line! problem", read in ranges of `bytes`.
Texts rows(const std::string& name, std::string_view content, uint64_t bytes = 1) {
  Texts texts;
  const RowFile file = row_file(name, content);
  uint64_t end = 0;
  for (const RowRange& range : cut_rows(content, file.kind, file.name, bytes)) {
    EXPECT_GE(range.bytes.begin, end);
    end = range.bytes.end;
    for_each_row(
        file, range,
        [&](const OrderedJson& columns, const std::string& place) {
          texts.push_back(place.substr(name.size() + 1) + ": " + columns.dump());
        },
        [&](const std::string& problem) { texts.push_back("bad " + problem); });
  }
  return texts;
}

std::string failure(const std::string& name, std::string_view content) {
  try {
    rows(name, content);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

void expect_has(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), text.npos) << text;
}

TEST(Rows, lines_of_json) {
  const std::string text =
      "\xEF\xBB\xBF{\"a\": 1}\r\n\n  \n{\"a\": \"x\\ny\", \"a\": 2}\n[]\n{\"a\": 3";
  const Texts found = rows("x.jsonl", text);
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0], "1: {\"a\":1}");
  EXPECT_EQ(found[1], "4: {\"a\":2}");
  expect_has(found[2], "bad x.jsonl:5: expected an object of columns, got array");
  expect_has(found[3], "bad x.jsonl:6: ");
  EXPECT_EQ(rows("x.json", text), rows("x.json", text, 1 << 20));
}

TEST(Rows, a_list_is_read_element_by_element) {
  const std::string text =
      " [\n{\"a\": \"]},{\\\"\\\\\"},\n {\n\"b\": [[1], {\"c\": {}}]\n}\n,\n\"text\", 7 ,{\"d\": "
      "4}]\n";
  for (const uint64_t bytes : {1, 20, 1000}) {
    const Texts found = rows("x.json", text, bytes);
    ASSERT_EQ(found.size(), 5u);
    EXPECT_EQ(found[0], R"(2: {"a":"]},{\"\\"})");
    EXPECT_EQ(found[1], R"(3: {"b":[[1],{"c":{}}]})");
    expect_has(found[2], "bad x.json:7: expected an object of columns, got string");
    expect_has(found[3], "bad x.json:7: ");
    EXPECT_EQ(found[4], "7: {\"d\":4}");
  }
  EXPECT_EQ(rows("x.json", "[]"), Texts{});
  EXPECT_EQ(rows("x.json", "[ ]\n"), Texts{});
}

TEST(Rows, a_broken_list_is_an_error_with_its_line) {
  expect_has(failure("x.json", "[{},\n{}"), "x.json:2: expected ',' or ']'");
  expect_has(failure("x.json", "[{},\n"), "x.json:2: expected an element behind the comma");
  expect_has(failure("x.json", "[{},\n]"), "x.json:2: expected an element, got ']'");
  expect_has(failure("x.json", "[\n{}\n{}]"), "x.json:3: expected ',' or ']'");
  expect_has(failure("x.json", "[\n{\"a\": \"}]"), "x.json:2: expected the end of the element");
  expect_has(failure("x.json", "[{}]\n1"), "x.json:2: expected the end of the file");
  expect_has(failure("x.json", "["), "x.json:1: expected ']'");
  expect_has(failure("x.json", "[,]"), "x.json:1: expected an element, got ','");
}

TEST(Rows, csv_with_quotes_and_line_feeds) {
  const std::string text = "a,b\r\n1,\"x, \"\"y\"\"\nz\"\n\nthree\n\"open,\n";
  const Texts found = rows("x.csv", text);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0], R"(2: {"a":"1","b":"x, \"y\"\nz"})");
  expect_has(found[1], "bad x.csv:5: expected 2 fields as in the header, got 1");
  expect_has(found[2], "bad x.csv:6: expected a quote at the end");
  EXPECT_EQ(csv_fields("a\"b,,\"\"\"\",\"\""), (Texts{"a\"b", "", "\"", ""}));
  EXPECT_THROW(csv_fields("\"a\"b"), DataError);
  expect_has(failure("x.csv", ""), "expected a header row in x.csv");
  expect_has(failure("x.csv", "a,a\n"), "'a' again");
}

TEST(Rows, text_by_lines) {
  const Texts found = rows("x.txt", "one\r\n\ntwo\n\xFF\n");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0], "1: {\"text\":\"one\"}");
  EXPECT_EQ(found[1], "3: {\"text\":\"two\"}");
  expect_has(found[2], "bad x.txt:4: expected UTF-8");
}

TEST(Rows, rows_beyond_the_limit_are_bad) {
  const std::string text = "{\"a\": \"" + std::string(kMaxRowBytes, 'x') + "\"}\n{}\n";
  const Texts found = rows("x.jsonl", text);
  ASSERT_EQ(found.size(), 2u);
  expect_has(found[0], "bad x.jsonl:1: expected at most 16777216 bytes");
}

TEST(Rows, files_without_a_reader_are_refused) {
  expect_has(failure("x.md", ""),
             "expected a .json, .jsonl, .csv, .parquet, .arrow or .txt file, got x.md");
}

TEST(Rows, the_first_rows) {
  const RowFile file = row_file("x.jsonl", "{\"a\":1}\nbad\n{\"a\":2}\n{\"a\":3}\n");
  Texts seen;
  for_first_rows(
      file, 3,
      [&](const OrderedJson& row, const std::string& place) { seen.push_back(place + row.dump()); },
      [&](const std::string& problem) { seen.push_back(problem.substr(0, 10)); });
  EXPECT_EQ(seen, (Texts{"x.jsonl:1{\"a\":1}", "x.jsonl:2:", "x.jsonl:3{\"a\":2}"}));
}

TEST(Rows, a_folder_gives_the_most_frequent_kind) {
  const TemporaryFolder folder;
  for (const char* name : {"b.json", "a.json.gz", "c.csv", "notes.md", "x.md", "y.md"})
    write_file_atomically(folder / name, "", FileRole::kData);
  const InputFiles input = input_files({folder.path(), "/there/x.csv"});
  EXPECT_EQ(input.files,
            (std::vector<fs::path>{folder / "a.json.gz", folder / "b.json", "/there/x.csv"}));
  ASSERT_EQ(input.notices.size(), 1u);
  expect_has(input.notices[0], "reading the 2 .json files, not c.csv, notes.md, x.md, y.md");
  write_file_atomically(folder / "d.csv", "", FileRole::kData);
  write_file_atomically(folder / "e.txt", "", FileRole::kData);
  EXPECT_THROW(input_files({folder.path()}), DataError);
}

}  // namespace
}  // namespace qianli::data
