#include "qianli/base/file_lock.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "qianli/base/log.h"
#include "qianli/base/stop.h"

namespace qianli {

FileLock::FileLock(fs::path path, FileRole role, const char* component) : path_(std::move(path)) {
  constexpr auto kPause = std::chrono::milliseconds(50);
  for (int tries = 0; !try_lock(role); ++tries) {
    if (tries == 20)
      log::info(component, "waiting for another process that holds {}", path_.string());
    throw_if_stopped(component);
    std::this_thread::sleep_for(kPause);
  }
}

// Removing a lock file races with another process that has just opened it; so a lock counts only
// when the name still leads to the file that was locked.
bool FileLock::try_lock(FileRole role) {
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) {
    throw_file_error(role,
                     fmt::format("cannot create {}: {}", path_.string(), std::strerror(errno)));
  }
  struct stat held {
  }, named{};
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0 && ::fstat(fd_, &held) == 0 &&
      ::stat(path_.c_str(), &named) == 0 && held.st_ino == named.st_ino &&
      held.st_dev == named.st_dev) {
    return true;
  }
  ::close(fd_);
  fd_ = -1;
  return false;
}

FileLock::~FileLock() {
  ::unlink(path_.c_str());
  ::close(fd_);
}

}  // namespace qianli
