// One process at a time: a lock that the system releases when its holder ends, however it ends.
#pragma once

#include "qianli/base/file.h"

namespace qianli {

// Held while the object lives. The file is made when missing and removed at the end. Works between
// processes of one machine, and of several where the file system knows flock (NFS 4, Lustre).
class FileLock {
 public:
  // Waits, logging whom for after a second; throws StoppedError when the program is asked to stop.
  FileLock(fs::path path, FileRole role, const char* component);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  bool try_lock(FileRole role);
  fs::path path_;
  int fd_ = -1;
};

}  // namespace qianli
