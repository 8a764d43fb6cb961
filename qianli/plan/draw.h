// Timelines of schedules as pictures: a row for each stage, a box for each computation with its
// microbatch's number in it.
#pragma once

#include <string>
#include <vector>

#include "qianli/plan/schedule.h"
#include "qianli/plan/simulate.h"

namespace qianli::plan {

struct Box {
  Op op;
  int32_t chunk, microbatch, slice;
  double begin, end;
  int lane;  // 0: the row's height, 1: its upper, 2: its lower half (merged pairs)
};

// The computations of a stage from left to right.
std::vector<Box> boxes(const Schedule& schedule, const Timeline& timeline, int32_t stage);

// "forward", "weight gradient".
const char* title(Op op);

// A picture of its own, legible on light and dark ground.
std::string draw_svg(const Schedule& schedule, const Timeline& timeline,
                     const std::string& heading);

struct TextStyle {
  int width = 100;     // columns at most
  bool colour = true;  // 256 colours; else letters say what a box is
};
// Lines for a terminal.
std::string draw_text(const Schedule& schedule, const Timeline& timeline, const TextStyle& style);

}  // namespace qianli::plan
