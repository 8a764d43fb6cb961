// One writer per folder of checkpoints.
#pragma once

#include <filesystem>

namespace qianli::checkpoint {

// Held until it goes, also by the death of the process. Where the file system has no locks, nothing
// is held and nothing is said.
class FolderLock {
 public:
  // Throws CheckpointError where another lock on the folder is held, by this process or another.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace qianli::checkpoint
