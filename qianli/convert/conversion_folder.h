// Files being written, which a later run goes on with.
//
// They stand beside the target in .NAME.converting until they are whole. `journal` there has a line
// for the conversion, and then one whenever more of a file is on disk: SIZE NAME. A run finds it
// and writes, if the conversion is the same, what lies behind those places; so what is there in the
// end is what an uninterrupted run would have written.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "qianli/base/folder_lock.h"
#include "qianli/base/output_file.h"

namespace qianli::convert {

class ConversionFolder {
 public:
  // `identity` says all that the files depend on, in one line. The journal is written every `step`
  // bytes. Throws CheckpointError where the target exists, or another process is writing it.
  ConversionFolder(fs::path target, const std::string& identity, uint64_t step = kGrowthStep);
  // Keeps what is written where a stop was asked for; else removes the folder unless committed.
  ~ConversionFolder();
  ConversionFolder(const ConversionFolder&) = delete;
  ConversionFolder& operator=(const ConversionFolder&) = delete;

  const fs::path& path() const { return path_; }
  // Calls write(), which writes `name` with an OutputFile of that growth.
  void write(const std::string& name, const std::function<void(FileGrowth)>& write);
  // Bytes that an earlier run wrote.
  uint64_t found() const;
  // The folder appears under the target's name.
  void commit();
  // The file `name`, which is all there is, does.
  void commit(const std::string& name);

 private:
  bool read_journal(const std::string& identity);
  void append(const std::string& line);
  void publish(const fs::path& made);

  fs::path target_, path_;
  uint64_t step_;
  std::map<std::string, uint64_t> found_;  // name and bytes on disk
  std::optional<FolderLock> lock_;
  bool committed_ = false;
};

}  // namespace qianli::convert
