// A file that is written from front to back, always the same, and that a later run may go on with.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "qianli/base/file.h"

namespace qianli {

// So much is written again where writing ended early.
inline constexpr uint64_t kGrowthStep = uint64_t{256} << 20;

// How a file grows: it stands under its name from the beginning, in a folder that is not visible
// yet, and stays when writing ends early. A later run tells how much it found, and writes the same
// file from the beginning: what was found is dropped, and may be skipped.
struct FileGrowth {
  uint64_t found = 0;  // bytes that are in the file already; what is behind them is thrown away
  uint64_t step = kGrowthStep;
  // After every `step` bytes, and at commit(): the first `bytes` of the file are on disk. Empty:
  // the file does not grow.
  std::function<void(uint64_t bytes)> on_disk;
};

// Without a growth an AtomicFile.
class OutputFile {
 public:
  OutputFile(fs::path path, FileRole role, FileGrowth growth = {});
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  // Replaces bytes written before.
  void write_at(uint64_t offset, const void* data, size_t bytes);
  // True where the next `bytes` bytes were found in the file: they count as written.
  bool skip(uint64_t bytes);
  // Of bytes that were skipped.
  void read_found(uint64_t offset, void* data, size_t bytes) const;
  uint64_t size() const { return size_; }
  void commit();

 private:
  void flush();
  void sync();

  std::optional<AtomicFile> atomic_;
  fs::path path_;
  FileRole role_;
  FileGrowth growth_;
  int fd_ = -1;
  uint64_t size_ = 0;
  uint64_t on_disk_ = 0;
  uint64_t writing_ = 0;  // up to here the disk was asked to begin
  std::string buffer_;
};

}  // namespace qianli
