#include "apps/qianli/engine/chat_input.h"

#include <unistd.h>

#include <cerrno>

#include "qianli/base/stop.h"

namespace qianli::app {
namespace {

volatile std::sig_atomic_t interrupted = 0;

}  // namespace

InterruptScope::InterruptScope() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  sigemptyset(&action.sa_mask);  // and no SA_RESTART: a read at the prompt comes back
  ::sigaction(SIGINT, &action, &before_);
}

InterruptScope::~InterruptScope() { ::sigaction(SIGINT, &before_, nullptr); }

bool InterruptScope::pending() { return interrupted != 0; }

bool InterruptScope::take() {
  const bool was = interrupted != 0;
  interrupted = 0;
  return was;
}

LineReader::Outcome LineReader::read(std::string& line) {
  line.clear();
  while (true) {
    std::string part;
    const Outcome outcome = read_one(part);
    line += part;
    if (outcome != Outcome::kLine)
      return outcome == Outcome::kEnd && !line.empty() ? Outcome::kLine : outcome;
    if (!line.ends_with('\\')) return outcome;
    line.back() = '\n';
  }
}

LineReader::Outcome LineReader::read_one(std::string& line) {
  while (true) {
    const size_t end = held_.find('\n');
    if (end != std::string::npos || (ended_ && !held_.empty())) {
      line = held_.substr(0, end);
      held_.erase(0, end == std::string::npos ? end : end + 1);
      return Outcome::kLine;
    }
    if (ended_ || stop_signal() != 0) return Outcome::kEnd;
    char buffer[4096];
    const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof(buffer));
    if (count > 0) {
      held_.append(buffer, static_cast<size_t>(count));
    } else if (count < 0 && errno == EINTR) {
      if (InterruptScope::take()) return Outcome::kInterrupted;
    } else {
      ended_ = true;
    }
  }
}

}  // namespace qianli::app
