#include "qianli/launch/console.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"

namespace qianli::launch {
namespace {

constexpr size_t kFull = 1 << 20;  // bytes

bool wants_colour(int fd) {
  const char* no = std::getenv("NO_COLOR");
  return (no == nullptr || *no == '\0') && ::isatty(fd) == 1;
}

// Six colours that can be read on dark and on light ground, in turn.
std::string prefix(int rank, bool colour) {
  if (!colour) return fmt::format("[{}] ", rank);
  return fmt::format("\x1b[{}m[{}]\x1b[0m ", 31 + rank % 6, rank);
}

}  // namespace

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno != EINTR) return false;
    if (count > 0) bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

void OutputQueue::push(std::string_view line) {
  if (lost_) return;
  if (pending() == 0) poller_.watch(fd_, POLLOUT, [this] { write_some(); });
  pending_ += line;
  pending_ += '\n';
}

// After poll() a pipe takes PIPE_BUF bytes at once, so this does not block, and lines of up to that
// length stay whole even where other programs write to the same pipe.
void OutputQueue::write_some() {
  std::string_view rest = std::string_view(pending_).substr(written_);
  const size_t whole_lines = rest.rfind('\n', PIPE_BUF - 1);
  rest = rest.substr(0, whole_lines == std::string_view::npos ? PIPE_BUF : whole_lines + 1);
  const ssize_t count = ::write(fd_, rest.data(), rest.size());
  if (count < 0) {
    if (errno == EINTR || errno == EAGAIN) return;
    lost_ = true;
    written_ = pending_.size();
  } else {
    written_ += static_cast<size_t>(count);
  }
  if (pending() == 0) {
    pending_.clear();
    written_ = 0;
    poller_.forget(fd_);
  } else if (written_ > kFull) {
    pending_.erase(0, written_);
    written_ = 0;
  }
}

Console::Console(Poller& poller, const std::filesystem::path& messages, bool quiet)
    : poller_(poller),
      out_(poller, STDOUT_FILENO),
      error_(poller, STDERR_FILENO),
      out_colour_(wants_colour(STDOUT_FILENO)),
      error_colour_(wants_colour(STDERR_FILENO)),
      quiet_(quiet) {
  if (messages.empty()) return;
  messages_ = Descriptor(::open(messages.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!messages_)
    throw ConfigError("launch", fmt::format("expected to write {}, got: {}", messages.string(),
                                            std::strerror(errno)));
}

void Console::rank_line(int rank, bool is_error, std::string_view line) {
  if (quiet_) return;
  const bool colour = is_error ? error_colour_ : out_colour_;
  (is_error ? error_ : out_).push(prefix(rank, colour) + std::string(line));
}

void Console::say(std::string_view text) {
  const std::string line = fmt::format("[launch] {}", text);
  if (messages_) write_all(messages_.get(), line + "\n");
  if (!quiet_) error_.push(line);
}

bool Console::is_full() const { return std::max(out_.pending(), error_.pending()) > kFull; }

void Console::flush() {
  while (out_.pending() + error_.pending() > 0 && stop_signal() == 0) poller_.wait(Time::max());
}

}  // namespace qianli::launch
