#include "qianli/data/parted_work.h"

#include <fmt/core.h>

#include <mutex>

#include "qianli/base/log.h"
#include "qianli/base/stop.h"
#include "qianli/base/threads.h"
#include "qianli/data/unpacked.h"

namespace qianli::data {
namespace {

fs::path make_parent(const fs::path& prefix) {
  create_folder(fs::absolute(prefix).parent_path(), FileRole::kData);
  return prefix;
}

// Files of a killed process that are visible under no final name yet.
void remove_leftovers(const fs::path& result) {
  const std::string begin = fmt::format(".{}.", result.filename().string());
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(fs::absolute(result).parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(begin) && name.find(".tmp-") != std::string::npos)
      fs::remove(entry, ignored);
  }
}

}  // namespace

PartedWork::PartedWork(const fs::path& prefix, const std::vector<fs::path>& results)
    : folder_(prefix.string() + ".parts"),
      lock_(make_parent(prefix).string() + ".lock", FileRole::kData, "data") {
  for (const fs::path& result : results) remove_leftovers(result);
}

bool PartedWork::was_begun(const std::string& identity) const {
  std::error_code ignored;
  const fs::path job = folder_ / "job";
  return fs::exists(job, ignored) && read_file(job, FileRole::kData, 1024) == identity;
}

void PartedWork::open(const std::string& identity) {
  if (was_begun(identity)) {
    log::info("data", "going on with the parts in {}", folder_.string());
    return;
  }
  if (fs::exists(folder_))
    log::info("data", "starting over: {} belongs to other text or settings", folder_.string());
  fs::remove_all(folder_);
  create_folder(folder_, FileRole::kData);
  write_file_atomically(folder_ / "job", identity, FileRole::kData);
}

std::shared_ptr<const MappedFile> PartedWork::input(size_t number, const fs::path& path) const {
  if (!is_packed(path)) return MappedFile::open(path, FileRole::kData);
  const fs::path unpacked = folder_ / fmt::format("input-{}", number);
  if (!fs::exists(unpacked)) unpack(path, unpacked);
  return MappedFile::open(unpacked, FileRole::kData);
}

void PartedWork::make(const std::vector<Part>& parts, int threads,
                      const ReportBytes& report) const {
  uint64_t total = 0, done = 0;
  std::vector<const Part*> missing;
  for (const Part& part : parts) {
    total += part.bytes;
    if (part.done)
      done += part.bytes;
    else
      missing.push_back(&part);
  }
  std::mutex mutex;
  const auto add = [&](uint64_t bytes) {
    std::lock_guard lock(mutex);
    done += bytes;
    if (report) report(done, total);
  };
  add(0);
  parallel_for(static_cast<int64_t>(missing.size()), threads > 0 ? threads : available_cores(),
               [&](int64_t i) {
                 const Part& part = *missing[static_cast<size_t>(i)];
                 throw_if_stopped("data");
                 part.make();
                 add(part.bytes);
               });
}

void PartedWork::finish() const { fs::remove_all(folder_); }

}  // namespace qianli::data
