// Output of processes, line by line.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <string>
#include <string_view>

namespace qianli::launch {

constexpr size_t kMostOutputLine = 16 << 10;  // bytes; longer lines are shown in pieces

// Cuts a stream into lines. A line ends with LF, CR (a progress bar) or CR LF; none of them is
// passed on. Holds at most kMostOutputLine bytes.
class LineSplitter {
 public:
  using Emit = std::function<void(std::string_view line)>;
  void add(std::string_view bytes, const Emit& emit);
  void finish(const Emit& emit);  // the last line may have no end

 private:
  void append(std::string_view part, const Emit& emit);
  std::string line_;
  bool after_return_ = false;
};

// The last lines of a stream, for a report.
class Tail {
 public:
  void add(std::string_view line);
  const std::deque<std::string>& lines() const { return lines_; }

 private:
  std::deque<std::string> lines_;
};

}  // namespace qianli::launch
