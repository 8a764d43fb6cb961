// The launcher's own output: lines of many ranks on two streams, whole lines only, without ever
// waiting for a slow reader.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "qianli/launch/descriptor.h"
#include "qianli/launch/poller.h"

namespace qianli::launch {

// What is still to be written to one stream. A reader that went away is no error: the rest is
// dropped, and the job goes on.
class OutputQueue {
 public:
  OutputQueue(Poller& poller, int fd) : poller_(poller), fd_(fd) {}
  ~OutputQueue() { poller_.forget(fd_); }
  OutputQueue(const OutputQueue&) = delete;
  OutputQueue& operator=(const OutputQueue&) = delete;

  void push(std::string_view line);  // adds the line feed
  size_t pending() const { return pending_.size() - written_; }

 private:
  void write_some();
  Poller& poller_;
  int fd_;
  std::string pending_;
  size_t written_ = 0;
  bool lost_ = false;
};

class Console {
 public:
  // `messages`: a file for what the launcher itself says; may be empty. `quiet`: nothing on the
  // streams.
  Console(Poller& poller, const std::filesystem::path& messages, bool quiet);

  // A line of a rank, to standard output or standard error.
  void rank_line(int rank, bool is_error, std::string_view line);
  // "[launch] text", to standard error.
  void say(std::string_view text);
  // So much is waiting that ranks should rather wait, too.
  bool is_full() const;
  // Writes what is left, however slow the reader, unless the user asks the program to stop
  // (qianli/base/stop.h).
  void flush();

 private:
  Poller& poller_;
  OutputQueue out_, error_;
  bool out_colour_, error_colour_;
  bool quiet_;
  Descriptor messages_;
};

// Writes all of it, waiting where that takes time. False where it cannot be written.
bool write_all(int fd, std::string_view bytes);

}  // namespace qianli::launch
