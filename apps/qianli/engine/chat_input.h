// Lines that someone types or pipes in, and Ctrl-C as a word of its own.
#pragma once

#include <csignal>
#include <optional>
#include <string>

namespace qianli::app {

// While one lives, Ctrl-C sets a flag instead of ending the program.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  static bool take();  // whether Ctrl-C came since the last call
  static bool pending();

 private:
  struct sigaction before_ {};
};

class LineReader {
 public:
  enum class Outcome { kLine, kInterrupted, kEnd };
  // A line of standard input without its end; one that ends with \ goes on in the next.
  Outcome read(std::string& line);

 private:
  Outcome read_one(std::string& line);

  std::string held_;
  bool ended_ = false;
};

}  // namespace qianli::app
