#include "apps/qianli/output.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "qianli/base/error.h"

namespace qianli::app {

namespace {

// Asked of the stream itself: errno may be of a write long before.
bool reader_is_gone() {
  pollfd output{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
  return ::poll(&output, 1, /*timeout=*/0) == 1 && (output.revents & (POLLERR | POLLHUP)) != 0;
}

}  // namespace

void open_standard_streams() {
  // open() gives the lowest free number.
  while (true) {
    const int fd = ::open("/dev/null", O_RDWR);
    if (fd < 0 || fd <= STDERR_FILENO) {
      if (fd < 0) return;
      continue;
    }
    ::close(fd);
    return;
  }
}

void finish_output() {
  std::cout.flush();
  const bool written = std::fflush(stdout) == 0 && !std::ferror(stdout) && !std::cout.bad();
  if (written || reader_is_gone()) return;
  throw DataError("output", "cannot write standard output", "check that the disk has room");
}

}  // namespace qianli::app
