#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string>
#include <utility>

#include "qianli/plan/draw.h"

namespace qianli::plan {
namespace {

constexpr double kRow = 26, kGap = 6, kLeft = 66, kTop = 44, kMargin = 12;
constexpr double kBox = 20;        // the shortest computation's width, where there is room
constexpr double kWidest = 1500;   // of all boxes of a row
constexpr double kDigit = 6.2;     // a digit's width at 11 pixels
constexpr double kLightest = 0.6;  // the last chunk's share of white

using Colour = std::array<int, 3>;

Colour base_colour(Op op) {
  switch (op) {
    case Op::kForward:
      return {36, 99, 214};
    case Op::kRecompute:
      return {134, 84, 206};
    case Op::kBackward:
      return {22, 135, 90};
    case Op::kInputGrad:
      return {14, 128, 148};
    default:
      return {207, 122, 12};
  }
}

// Later chunks are lighter.
Colour colour_of(const Schedule& schedule, Op op, int32_t chunk) {
  Colour colour = base_colour(op);
  if (schedule.chunks == 1) return colour;
  const double white = kLightest * chunk / (schedule.chunks - 1);
  for (int& part : colour) part = static_cast<int>(std::lround(part + (255 - part) * white));
  return colour;
}

std::string hex(const Colour& colour) {
  return fmt::format("#{:02x}{:02x}{:02x}", colour[0], colour[1], colour[2]);
}

const char* ink_on(const Colour& colour) {
  const double light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2];
  return light > 140 ? "#0b1a33" : "#ffffff";
}

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char letter : text) {
    safe += letter == '<'   ? "&lt;"
            : letter == '>' ? "&gt;"
            : letter == '&' ? "&amp;"
                            : std::string(1, letter);
  }
  return safe;
}

class Drawing {
 public:
  Drawing(const Schedule& schedule, const Timeline& timeline)
      : schedule_(schedule), timeline_(timeline) {
    double shortest = timeline.makespan;
    for (int32_t stage = 0; stage < schedule.stages; ++stage) {
      rows_.push_back(boxes(schedule, timeline, stage));
      for (const Box& box : rows_.back()) {
        if (box.end > box.begin) shortest = std::min(shortest, box.end - box.begin);
        kinds_.insert({box.op, box.chunk});
      }
    }
    if (timeline.makespan > 0) scale_ = std::min(kBox / shortest, kWidest / timeline.makespan);
  }

  std::string run(const std::string& heading) {
    const double height =
        kTop + schedule_.stages * (kRow + kGap) + 30 + legend_rows() * 20 + kMargin;
    text_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
        "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', "
        "sans-serif\" font-size=\"11\">\n"
        "<style>text{{fill:#3a4356}}.h{{font-size:14px;font-weight:600;fill:#111827}}"
        ".m{{text-anchor:middle}}.e{{text-anchor:end}}.t{{fill:#8892a6;fill-opacity:.16}}"
        ".a{{stroke:#8892a6;stroke-opacity:.5}}"
        "@media (prefers-color-scheme:dark){{text{{fill:#b6bfd1}}.h{{fill:#f3f4f6}}}}</style>\n",
        width(), height);
    text_ +=
        fmt::format("<text class=\"h\" x=\"{}\" y=\"24\">{}</text>\n", kMargin, escaped(heading));
    text_ += fmt::format(
        "<text class=\"e\" x=\"{:.1f}\" y=\"24\">makespan {:.4g}, bubble {:.1f} %</text>\n",
        width() - kMargin, timeline_.makespan, 100 * timeline_.bubble());
    for (int32_t stage = 0; stage < schedule_.stages; ++stage) row(stage);
    axis();
    legend();
    return text_ + "</svg>\n";
  }

 private:
  double width() const { return std::max(kLeft + timeline_.makespan * scale_ + kMargin, 420.0); }
  double top(int32_t stage) const { return kTop + stage * (kRow + kGap); }

  void row(int32_t stage) {
    text_ += fmt::format("<text class=\"e\" x=\"{}\" y=\"{:.1f}\">stage {}</text>", kLeft - 8,
                         top(stage) + kRow / 2 + 4, stage);
    text_ += fmt::format(
        "<rect class=\"t\" x=\"{}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\" rx=\"3\"/>\n",
        kLeft, top(stage), timeline_.makespan * scale_, kRow);
    for (const Box& box : rows_[static_cast<size_t>(stage)]) draw(box, top(stage));
  }

  void draw(const Box& box, double top) {
    const double height = box.lane == 0 ? kRow : kRow / 2;
    if (box.lane == 2) top += height;
    const double left = kLeft + box.begin * scale_, wide = (box.end - box.begin) * scale_;
    const Colour colour = colour_of(schedule_, box.op, box.chunk);
    text_ += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" rx=\"{}\" "
        "fill=\"{}\"/>",
        left + 0.5, top, std::max(wide - 1, 0.3), box.lane == 0 ? height : height - 0.5,
        wide > 6 ? 3 : 0, hex(colour));
    std::string label = fmt::format("{}", box.microbatch);
    if (schedule_.slices > 1) label += static_cast<char>('a' + box.slice % 26);
    if (kDigit * static_cast<double>(label.size()) + 2 < wide) {
      text_ +=
          fmt::format("<text class=\"m\" x=\"{:.1f}\" y=\"{:.1f}\" style=\"fill:{}\"{}>{}</text>",
                      left + wide / 2, top + height / 2 + 4, ink_on(colour),
                      box.lane == 0 ? "" : " font-size=\"10\"", label);
    }
    text_ += "\n";
  }

  void axis() {
    const double y = top(schedule_.stages) + 4;
    double step = std::pow(10, std::floor(std::log10(std::max(timeline_.makespan, 1e-9))));
    if (timeline_.makespan / step < 4) step /= timeline_.makespan / step < 2 ? 5 : 2;
    for (int i = 0; i * step <= timeline_.makespan; ++i) {
      const double x = kLeft + i * step * scale_;
      text_ += fmt::format(
          "<line class=\"a\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>"
          "<text class=\"m\" x=\"{0:.1f}\" y=\"{3:.1f}\">{4:g}</text>\n",
          x, y - 4, y, y + 12, i * step);
    }
  }

  double entry_width() const { return schedule_.chunks > 1 ? 172 : 124; }
  int per_row() const {
    return std::max(1, static_cast<int>((width() - kLeft - kMargin) / entry_width()));
  }
  int legend_rows() const { return (static_cast<int>(kinds_.size()) + per_row() - 1) / per_row(); }

  void legend() {
    int index = 0;
    for (const auto& [op, chunk] : kinds_) {
      const double x = kLeft + index % per_row() * entry_width(),
                   y = top(schedule_.stages) + 30 + index / per_row() * 20;
      text_ += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"12\" height=\"12\" rx=\"3\" fill=\"{}\"/>"
          "<text x=\"{:.1f}\" y=\"{:.1f}\">{}{}</text>\n",
          x, y, hex(colour_of(schedule_, op, chunk)), x + 18, y + 10, title(op),
          schedule_.chunks > 1 ? fmt::format(", chunk {}", chunk) : "");
      ++index;
    }
  }

  const Schedule& schedule_;
  const Timeline& timeline_;
  std::vector<std::vector<Box>> rows_;
  std::set<std::pair<Op, int32_t>> kinds_;
  double scale_ = 1;  // pixels of a unit of time
  std::string text_;
};

}  // namespace

std::string draw_svg(const Schedule& schedule, const Timeline& timeline,
                     const std::string& heading) {
  return Drawing(schedule, timeline).run(heading);
}

}  // namespace qianli::plan
