#include "qianli/launch/lines.h"

#include <gtest/gtest.h>

#include <vector>

namespace qianli::launch {
namespace {

using Lines = std::vector<std::string>;

Lines split_in_pieces(const std::string& text, size_t piece) {
  Lines lines;
  LineSplitter splitter;
  const auto emit = [&](std::string_view line) { lines.emplace_back(line); };
  for (size_t i = 0; i < text.size(); i += piece) splitter.add(text.substr(i, piece), emit);
  splitter.finish(emit);
  return lines;
}

TEST(LineSplitter, does_not_depend_on_how_bytes_arrive) {
  const std::string text = "one\n\ntwo\r\nprogress 1\rprogress 2\rdone\nno end";
  const Lines expected{"one", "", "two", "progress 1", "progress 2", "done", "no end"};
  for (size_t piece = 1; piece <= text.size(); ++piece)
    EXPECT_EQ(split_in_pieces(text, piece), expected) << piece;
}

TEST(LineSplitter, cuts_long_lines_between_characters) {
  std::string text;
  for (int i = 0; i < 10000; ++i) text += "千里";
  const Lines lines = split_in_pieces(text + "\n", 1000);
  ASSERT_EQ(lines.size(), 4u);
  std::string joined;
  for (const auto& line : lines) {
    EXPECT_LE(line.size(), kMostOutputLine);
    EXPECT_EQ(line.size() % 3, 0u);
    joined += line;
  }
  EXPECT_EQ(joined, text);
}

TEST(LineSplitter, takes_bytes_that_are_no_text) {
  const std::string bytes(50000, '\x80');
  size_t total = 0;
  for (const auto& line : split_in_pieces(bytes, 777)) total += line.size();
  EXPECT_EQ(total, bytes.size());
}

TEST(Tail, keeps_the_last_lines_short) {
  Tail tail;
  for (int i = 0; i < 100; ++i) tail.add("line " + std::to_string(i));
  tail.add("");
  tail.add(std::string(10000, 'x'));
  EXPECT_EQ(tail.lines().size(), 12u);
  EXPECT_EQ(tail.lines().front(), "line 89");
  EXPECT_LT(tail.lines().back().size(), 300u);
}

}  // namespace
}  // namespace qianli::launch
