#include "qianli/base/file_calls.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace qianli {

void throw_errno(FileRole role, const char* verb, const fs::path& path) {
  const int code = errno;
  std::string hint;
  if (code == ENOSPC) hint = "free some space or choose another folder";
  if (code == EROFS || code == EACCES) hint = "check the permissions of the folder";
  throw_file_error(role, fmt::format("cannot {} {}: {}", verb, path.string(), std::strerror(code)),
                   hint);
}

void write_all(int fd, const char* data, size_t bytes, int64_t offset, FileRole role,
               const fs::path& path) {
  while (bytes > 0) {
    const ssize_t done = offset < 0 ? ::write(fd, data, bytes) : ::pwrite(fd, data, bytes, offset);
    if (done < 0) {
      if (errno == EINTR) continue;
      throw_errno(role, "write", path);
    }
    data += done;
    bytes -= static_cast<size_t>(done);
    if (offset >= 0) offset += done;
  }
}

}  // namespace qianli
