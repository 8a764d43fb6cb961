// One writer per folder. Nothing in it has to be kept for that: the folder itself is locked.
#pragma once

#include <string>

#include "qianli/base/file.h"

namespace qianli {

// Held until it goes, also by the death of the process. Where the file system has no locks, nothing
// is held and nothing is said.
class FolderLock {
 public:
  // Throws the error of `role`, "another process WRITES", where another lock on the folder is held,
  // by this process or another.
  FolderLock(const fs::path& folder, FileRole role, const std::string& writes,
             const std::string& hint = {});
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace qianli
