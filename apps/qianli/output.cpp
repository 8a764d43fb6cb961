#include "apps/qianli/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "qianli/base/error.h"

namespace qianli::app {

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
  errno = 0;
  std::cout.flush();
  const bool written = std::fflush(stdout) == 0 && !std::ferror(stdout) && !std::cout.bad();
  if (written || errno == EPIPE) return;
  throw DataError("output", std::string("cannot write standard output: ") +
                                (errno ? std::strerror(errno) : "a write failed"));
}

}  // namespace qianli::app
