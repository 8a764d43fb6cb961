// Files: reading with limits, memory maps, and writing so that a crash never leaves half a file
// under the final name. Failures throw DataError naming the path and the system's reason, unless
// the caller asks for another kind through `OnError`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace qianli {

namespace fs = std::filesystem;

// Who is at fault when a file cannot be read or written decides the exit code.
enum class FileRole { kConfig, kData, kCheckpoint };
[[noreturn]] void throw_file_error(FileRole role, const std::string& problem,
                                   const std::string& hint = {});

// Whole file as bytes. Refuses files above `max_bytes`.
std::string read_file(const fs::path& path, FileRole role, uint64_t max_bytes = uint64_t{1} << 32);

// Writes path.tmp-PID, fsyncs it, renames it over `path`, fsyncs the folder.
void write_file_atomically(const fs::path& path, std::string_view bytes, FileRole role);

// Makes the folder and its parents where they are missing.
void create_folder(const fs::path& path, FileRole role);

void fsync_path(const fs::path& path, FileRole role);

// Read-only map of a whole file; empty files map to an empty span. A file that shrinks under the
// map raises SIGBUS in the reader, so callers check sizes against `size()` at opening.
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const fs::path& path, FileRole role);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  const fs::path& path() const { return path_; }
  // Tells the kernel how the pages will be read.
  void advise_sequential() const;

 private:
  MappedFile(fs::path path, const std::byte* data, size_t size);
  fs::path path_;
  const std::byte* data_;
  size_t size_;
};

// A file being written: buffered, checked at every write, visible under its name only after
// commit(). The destructor without commit() removes what was written.
class AtomicFile {
 public:
  AtomicFile(fs::path path, FileRole role);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  // Replaces bytes written before (for headers whose content is known last).
  void write_at(uint64_t offset, const void* data, size_t bytes);
  uint64_t size() const { return size_; }
  void commit();

 private:
  void flush();
  fs::path path_;
  fs::path temporary_;
  FileRole role_;
  int fd_ = -1;
  uint64_t size_ = 0;
  std::string buffer_;
};

// A folder being written: work in path(), then commit() renames it to its final name. The
// destructor without commit() removes it. Files inside are fsynced by whoever writes them.
class AtomicFolder {
 public:
  AtomicFolder(fs::path final_path, FileRole role);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const fs::path& path() const { return temporary_; }
  // Refuses when the final name exists already.
  void commit();
  // Puts the folder in the place of one that has the final name, if there is one, and removes that.
  // In one step where the file system can exchange names; elsewhere there is a moment in which
  // nothing has the final name.
  void commit_replacing();

 private:
  fs::path final_;
  fs::path temporary_;
  FileRole role_;
  bool committed_ = false;  // nothing is left under the temporary name
};

// Free bytes on the file system of `path` (or of its nearest existing parent).
uint64_t free_disk_bytes(const fs::path& path);

}  // namespace qianli
