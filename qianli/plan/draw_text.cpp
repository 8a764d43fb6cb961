#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "qianli/plan/draw.h"

namespace qianli::plan {
namespace {

// Of 256 colours, three shades each: the chunks of a stage, from dark to light.
struct Shades {
  int ground[3];
};

Shades shades_of(Op op) {
  switch (op) {
    case Op::kForward:
      return {{26, 33, 117}};
    case Op::kRecompute:
      return {{97, 140, 183}};
    case Op::kBackward:
      return {{28, 71, 157}};
    case Op::kInputGrad:
      return {{30, 37, 123}};
    default:
      return {{172, 214, 223}};
  }
}

char letter(Op op) { return "FRBbW"[static_cast<size_t>(op)]; }

// Small digits: ₀ to ₉ are three bytes each.
std::string subscript(int32_t number) {
  std::string text;
  for (const char digit : fmt::format("{}", number)) {
    text += "\xE2\x82";
    text += static_cast<char>(0x80 + (digit - '0'));
  }
  return text;
}

std::string repeat(const char* text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

class TextDrawing {
 public:
  TextDrawing(const Schedule& schedule, const Timeline& timeline, const TextStyle& style)
      : schedule_(schedule), timeline_(timeline), style_(style) {
    indent_ = static_cast<int>(fmt::formatted_size("stage {} ", schedule.stages - 1));
    double shortest = timeline.makespan;
    for (int32_t stage = 0; stage < schedule.stages; ++stage) {
      rows_.push_back(boxes(schedule, timeline, stage));
      for (Box& box : rows_.back()) {
        // One line has no halves: a merged pair is drawn one after the other.
        const double middle = (box.begin + box.end) / 2;
        if (box.lane == 1) box.end = middle;
        if (box.lane == 2) box.begin = middle;
        if (box.end > box.begin) shortest = std::min(shortest, box.end - box.begin);
        kinds_.insert({box.op, box.chunk});
      }
    }
    if (timeline.makespan <= 0) return;
    const int digits = static_cast<int>(fmt::formatted_size("{}", schedule.microbatches - 1)) +
                       (schedule.slices > 1 ? 1 : 0);
    const int wanted = style.colour ? digits + 1 : digits + 2 + (schedule.chunks > 1 ? 1 : 0);
    scale_ = std::min(wanted / shortest, (style.width - indent_) / timeline.makespan);
    // Whole columns keep boxes of one length at one width.
    if (scale_ * shortest >= 1) scale_ = std::floor(scale_ * shortest) / shortest;
  }

  std::string run() {
    std::string text;
    for (int32_t stage = 0; stage < schedule_.stages; ++stage) {
      text += fmt::format("{:<{}}", fmt::format("stage {}", stage), indent_) + row(stage) + "\n";
    }
    return text + legend();
  }

 private:
  int column(double time) const { return static_cast<int>(std::lround(time * scale_)); }

  std::string row(int32_t stage) const {
    std::string text;
    int at = 0;
    for (const Box& box : rows_[static_cast<size_t>(stage)]) {
      const int begin = std::max(at, column(box.begin)), end = column(box.end);
      if (end <= begin) continue;
      text += idle(begin - at) + draw(box, end - begin);
      at = end;
    }
    return text + idle(column(timeline_.makespan) - at);
  }

  std::string idle(int columns) const { return repeat(style_.colour ? " " : "·", columns); }

  std::string label(const Box& box) const {
    std::string text = fmt::format("{}", box.microbatch);
    if (schedule_.slices > 1) text += static_cast<char>('a' + box.slice % 26);
    return text;
  }

  std::string draw(const Box& box, int columns) const {
    const std::string number = label(box);
    const int digits = static_cast<int>(number.size());
    if (!style_.colour) return draw_plain(box, number, columns);
    if (columns < digits)
      return paint(box.op, box.chunk, number.substr(number.size() - static_cast<size_t>(columns)));
    // A thin line parts neighbours of one colour.
    std::string inside = columns > digits ? "▏" : "";
    int rest = columns - digits - (columns > digits ? 1 : 0);
    inside += std::string(static_cast<size_t>(rest / 2), ' ') + number;
    rest -= rest / 2;
    return paint(box.op, box.chunk, inside + std::string(static_cast<size_t>(rest), ' '));
  }

  // As much of "F₁3─── " as there is room for.
  std::string draw_plain(const Box& box, const std::string& number, int columns) const {
    const std::string chunk = schedule_.chunks > 1 ? subscript(box.chunk) : "";
    const int short_label = 1 + static_cast<int>(number.size());
    const int label = short_label + static_cast<int>(chunk.size() / 3);
    std::string text(1, letter(box.op));
    if (columns < short_label) return text + repeat("─", columns - 1);
    if (columns < label) return text + number + repeat("─", columns - short_label);
    text += chunk + number;
    return columns == label ? text : text + repeat("─", columns - label - 1) + " ";
  }

  std::string paint(Op op, int32_t chunk, const std::string& text) const {
    const int shade = schedule_.chunks == 1 ? 0 : 2 * chunk / (schedule_.chunks - 1);
    return fmt::format("\x1b[38;5;{};48;5;{}m{}\x1b[0m",
                       shade == 0 && op != Op::kWeightGrad ? 231 : 16, shades_of(op).ground[shade],
                       text);
  }

  std::string legend() const {
    std::string text(static_cast<size_t>(indent_), ' ');
    std::set<Op> told;
    for (const auto& [op, chunk] : kinds_) {
      if (style_.colour) {
        const std::string which = schedule_.chunks > 1 ? fmt::format("{} ", chunk) : "";
        text += paint(op, chunk, fmt::format(" {} {}", title(op), which)) + " ";
      } else if (told.insert(op).second) {
        text += fmt::format("{} {}  ", letter(op), title(op));
      }
    }
    if (!style_.colour && schedule_.chunks > 1) text += "F₁3 chunk 1, microbatch 3";
    text.erase(text.find_last_not_of(' ') + 1);
    return text + "\n";
  }

  const Schedule& schedule_;
  const Timeline& timeline_;
  TextStyle style_;
  int indent_ = 0;
  std::vector<std::vector<Box>> rows_;
  std::set<std::pair<Op, int32_t>> kinds_;
  double scale_ = 1;  // columns of a unit of time
};

}  // namespace

const char* title(Op op) {
  switch (op) {
    case Op::kForward:
      return "forward";
    case Op::kRecompute:
      return "recompute";
    case Op::kBackward:
      return "backward";
    case Op::kInputGrad:
      return "input gradient";
    default:
      return "weight gradient";
  }
}

std::vector<Box> boxes(const Schedule& schedule, const Timeline& timeline, int32_t stage) {
  std::vector<Box> found;
  const Program& program = schedule.programs[static_cast<size_t>(stage)];
  const auto& spans = timeline.spans[static_cast<size_t>(stage)];
  int lane = 0;
  for (size_t i = 0; i < program.size(); ++i) {
    const Instruction& instruction = program[i];
    if (!is_compute(instruction.op)) continue;
    lane = instruction.paired ? 1 : lane == 1 ? 2 : 0;
    found.push_back({instruction.op, instruction.chunk, instruction.microbatch, instruction.slice,
                     spans[i].begin, spans[i].end, lane});
  }
  return found;
}

std::string draw_text(const Schedule& schedule, const Timeline& timeline, const TextStyle& style) {
  return TextDrawing(schedule, timeline, style).run();
}

}  // namespace qianli::plan
