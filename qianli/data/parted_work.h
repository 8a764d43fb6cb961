// Work on files that is cut into parts, done in parallel, and goes on after an interruption, even
// SIGKILL: finished parts stay in PREFIX.parts until the whole result is there.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "qianli/base/file.h"
#include "qianli/base/file_lock.h"

namespace qianli::data {

// Bytes of input done so far and in all; one call at a time.
using ReportBytes = std::function<void(uint64_t done, uint64_t total)>;

class PartedWork {
 public:
  // Makes the folder of the prefix, waits for other processes that work on the same, and removes
  // what a killed one left half-written of `results`, the files to be made without their suffixes.
  PartedWork(const fs::path& prefix, const std::vector<fs::path>& results);

  // Opens the folder of parts: those of another job, by its identity, are thrown away.
  void open(const std::string& identity);
  // Whether there are parts of this job.
  bool was_begun(const std::string& identity) const;
  const fs::path& folder() const { return folder_; }
  // An input file, unpacked into the folder where it is packed (unpacked.h).
  std::shared_ptr<const MappedFile> input(size_t number, const fs::path& path) const;

  struct Part {
    uint64_t bytes = 0;  // of input
    bool done = false;
    std::function<void()> make;
  };
  // Makes the missing parts on `threads` threads (0: available_cores()). StoppedError when the
  // program is asked to stop.
  void make(const std::vector<Part>& parts, int threads, const ReportBytes& report) const;

  // The result is there: the parts go.
  void finish() const;

 private:
  fs::path folder_;
  FileLock lock_;
};

}  // namespace qianli::data
