#include "qianli/plan/draw.h"

#include <gtest/gtest.h>

#include <sstream>

#include "tests/plan/schedule_cases.h"

namespace qianli::plan {
namespace {

using enum ScheduleKind;

size_t count(const std::string& text, const std::string& word) {
  size_t found = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++found;
  return found;
}

// Without colours; columns are counted as characters that are not inside a UTF-8 sequence.
size_t columns(const std::string& line) {
  size_t found = 0;
  bool escape = false;
  for (const char c : line) {
    if (c == '\x1b') escape = true;
    if (!escape && (static_cast<unsigned char>(c) & 0xC0) != 0x80) ++found;
    if (c == 'm') escape = false;
  }
  return found;
}

TEST(Draw, text_shows_who_does_what_when) {
  const Schedule schedule = make_schedule({.kind = k1F1B, .stages = 2, .microbatches = 3});
  const Timeline line = simulate(schedule, Times{});
  EXPECT_EQ(draw_text(schedule, line, {.width = 60, .colour = false}),
            "stage 0 F0 F1 ······B0─── F2 B1─── ···B2─── \n"
            "stage 1 ···F0 B0─── F1 B1─── F2 B2─── ······\n"
            "        F forward  B backward\n");
}

TEST(Draw, text_fits_its_width_and_rows_are_equally_long) {
  for (const ScheduleOptions& options :
       {ScheduleOptions{.kind = k1F1B, .stages = 4, .microbatches = 64},
        ScheduleOptions{.kind = kNanoPipe, .stages = 4, .microbatches = 12, .chunks = 3},
        ScheduleOptions{
            .kind = kDualPipeV, .stages = 4, .microbatches = 8, .chunks = 2, .merge_pairs = true},
        ScheduleOptions{.kind = kSeq1F1B, .stages = 12, .microbatches = 400, .slices = 4}}) {
    const Schedule schedule = make_schedule(options);
    const Timeline line = simulate(schedule, Times{});
    for (const bool colour : {false, true}) {
      for (const int width : {40, 80, 200}) {
        std::istringstream lines(draw_text(schedule, line, {.width = width, .colour = colour}));
        std::string row;
        std::getline(lines, row);
        const size_t first = columns(row);
        EXPECT_LE(first, static_cast<size_t>(width));
        EXPECT_GT(first, static_cast<size_t>(width) / 3);
        for (int64_t stage = 1; stage < options.stages; ++stage) {
          std::getline(lines, row);
          EXPECT_EQ(columns(row), first) << describe(options) << row;
        }
      }
    }
  }
}

TEST(Draw, svg_has_a_box_for_each_computation) {
  const Schedule schedule =
      make_schedule({.kind = kInterleaved, .stages = 2, .microbatches = 4, .chunks = 2});
  const std::string svg = draw_svg(schedule, simulate(schedule, Times{}), "a < b & c");
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_NE(svg.find(">a &lt; b &amp; c</text>"), std::string::npos);
  EXPECT_EQ(count(svg, "<rect"), 2u + 32u + 4u);  // rows, computations, legend
  EXPECT_EQ(count(svg, "prefers-color-scheme:dark"), 1u);
  EXPECT_EQ(count(svg, ">stage "), 2u);
  EXPECT_NE(svg.find("bubble"), std::string::npos);
}

TEST(Draw, merged_pairs_share_a_box) {
  const Schedule schedule = make_schedule(
      {.kind = kDualPipeV, .stages = 2, .microbatches = 4, .chunks = 2, .merge_pairs = true});
  const Timeline line = simulate(schedule, Times{});
  int halves = 0;
  const std::vector<Box> row = boxes(schedule, line, 0);
  for (size_t i = 0; i < row.size(); ++i) {
    if (row[i].lane != 1) continue;
    ++halves;
    EXPECT_EQ(row[i + 1].lane, 2);
    EXPECT_EQ(row[i + 1].begin, row[i].begin);
    EXPECT_EQ(row[i + 1].end, row[i].end);
  }
  EXPECT_EQ(halves, 3);
}

}  // namespace
}  // namespace qianli::plan
