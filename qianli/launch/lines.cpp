#include "qianli/launch/lines.h"

#include <algorithm>

namespace qianli::launch {
namespace {

constexpr size_t kTailLines = 12, kTailLine = 240;

// Where to cut so that no character of UTF-8 is torn; at least one byte.
size_t cut(std::string_view text, size_t most) {
  size_t end = std::min(most, text.size());
  if (end == text.size()) return end;
  for (size_t back = 0; back < 3 && end > 1; ++back, --end)
    if ((static_cast<unsigned char>(text[end]) & 0xc0) != 0x80) return end;
  return std::min(most, text.size());
}

}  // namespace

void LineSplitter::append(std::string_view part, const Emit& emit) {
  line_ += part;
  std::string_view rest = line_;
  while (rest.size() > kMostOutputLine) {
    const size_t piece = cut(rest, kMostOutputLine);
    emit(rest.substr(0, piece));
    rest.remove_prefix(piece);
  }
  line_ = std::string(rest);
}

void LineSplitter::add(std::string_view bytes, const Emit& emit) {
  while (!bytes.empty()) {
    if (after_return_ && bytes.front() == '\n') bytes.remove_prefix(1);
    after_return_ = false;
    const size_t end = bytes.find_first_of("\r\n");
    append(bytes.substr(0, end), emit);
    if (end == std::string_view::npos) return;
    after_return_ = bytes[end] == '\r';
    emit(line_);
    line_.clear();
    bytes.remove_prefix(end + 1);
  }
}

void LineSplitter::finish(const Emit& emit) {
  if (!line_.empty()) emit(line_);
  line_.clear();
}

void Tail::add(std::string_view line) {
  if (line.empty()) return;
  std::string shown(line.substr(0, cut(line, kTailLine)));
  if (shown.size() < line.size()) shown += "…";
  lines_.push_back(std::move(shown));
  if (lines_.size() > kTailLines) lines_.pop_front();
}

}  // namespace qianli::launch
