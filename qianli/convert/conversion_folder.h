// A folder being written file by file, which a later run goes on with.
//
// It stands beside the target as .NAME.converting until it is whole. `journal` in it has a line for
// the conversion and one for each finished file, appended when the file is on disk under its name.
// A run finds it, keeps the files that the journal names if the conversion is the same, and writes
// the others; so what is there in the end is what an uninterrupted run would have written.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "qianli/base/file.h"

namespace qianli::convert {

class ConversionFolder {
 public:
  // `identity` says all that the files depend on, in one line. Throws CheckpointError where the
  // target exists, or another process is writing it.
  ConversionFolder(fs::path target, const std::string& identity);
  // Keeps what is finished where a stop was asked for; else removes the folder unless committed.
  ~ConversionFolder();
  ConversionFolder(const ConversionFolder&) = delete;
  ConversionFolder& operator=(const ConversionFolder&) = delete;

  const fs::path& path() const { return path_; }
  // Calls write(), which writes `name` whole, unless an earlier run did.
  void once(const std::string& name, const std::function<void()>& write);
  // Files that an earlier run finished.
  size_t found() const { return found_.size(); }
  // The folder appears under the target's name.
  void commit();

 private:
  void lock();
  bool read_journal(const std::string& identity);
  void append(const std::string& line);

  fs::path target_, path_;
  std::map<std::string, uint64_t> found_;  // name and size
  int lock_ = -1;
  bool committed_ = false;
};

}  // namespace qianli::convert
