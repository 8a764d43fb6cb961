#include "qianli/convert/conversion_folder.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>
#include <vector>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/stop.h"
#include "qianli/convert/produce.h"

namespace qianli::convert {
namespace {

constexpr const char* kJournal = "journal";
constexpr uint64_t kMaxJournalBytes = uint64_t{256} << 20;

[[noreturn]] void fail(const fs::path& path, const char* verb) {
  throw_file_error(FileRole::kCheckpoint,
                   fmt::format("cannot {} {}: {}", verb, path.string(), std::strerror(errno)));
}

fs::path working_name(const fs::path& target) {
  return target.parent_path() / fmt::format(".{}.converting", target.filename().string());
}

// A name may not leave the folder, whoever wrote the journal.
bool is_inside(const fs::path& name) {
  if (name.empty() || name.is_absolute()) return false;
  for (const fs::path& part : name) {
    if (part == "..") return false;
  }
  return true;
}

}  // namespace

ConversionFolder::ConversionFolder(fs::path target, const std::string& identity)
    : target_(std::move(target)), path_(working_name(target_)) {
  refuse_existing(target_);
  create_folder(path_, FileRole::kCheckpoint);
  lock();
  if (read_journal(identity)) {
    log::info("convert", "going on in {}: {} files are finished", path_.string(), found_.size());
    return;
  }
  found_.clear();
  for (const auto& entry : fs::directory_iterator(path_)) fs::remove_all(entry.path());
  append(identity);
}

ConversionFolder::~ConversionFolder() {
  std::error_code ignored;
  if (!committed_ && stop_signal() == 0) fs::remove_all(path_, ignored);
  ::close(lock_);
}

// The folder itself is locked: nothing in it has to be kept for that.
void ConversionFolder::lock() {
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) fail(path_, "open");
  if (::flock(lock_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  ::close(lock_);
  throw CheckpointError("convert", fmt::format("another process is writing {}", target_.string()));
}

bool ConversionFolder::read_journal(const std::string& identity) {
  const fs::path journal = path_ / kJournal;
  if (!fs::is_regular_file(journal)) return false;
  std::istringstream lines(read_file(journal, FileRole::kCheckpoint, kMaxJournalBytes));
  std::string line;
  if (!std::getline(lines, line) || line != identity) return false;
  while (std::getline(lines, line)) {
    // SIZE NAME; a last line that was cut off names a file of another size, or none.
    const size_t space = line.find(' ');
    if (space == line.npos || lines.eof()) break;
    const std::string name = line.substr(space + 1);
    std::error_code error;
    const uint64_t size = is_inside(name) ? fs::file_size(path_ / name, error) : 0;
    if (!is_inside(name) || error || std::to_string(size) != line.substr(0, space)) return false;
    found_[name] = size;
  }
  return true;
}

void ConversionFolder::append(const std::string& line) {
  const fs::path journal = path_ / kJournal;
  const int fd = ::open(journal.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) fail(journal, "open");
  const std::string text = line + "\n";
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       ::fsync(fd) == 0;
  ::close(fd);
  if (!written) fail(journal, "write");
}

void ConversionFolder::once(const std::string& name, const std::function<void()>& write) {
  if (found_.contains(name)) return;
  create_folder((path_ / name).parent_path(), FileRole::kCheckpoint);
  write();
  append(fmt::format("{} {}", fs::file_size(path_ / name), name));
}

void ConversionFolder::commit() {
  std::vector<fs::path> halves;  // of files that a killed run left
  for (const auto& entry : fs::recursive_directory_iterator(path_)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') && name.find(".tmp-") != name.npos) halves.push_back(entry.path());
  }
  for (const fs::path& half : halves) fs::remove(half);
  fs::remove(path_ / kJournal);
  fsync_path(path_, FileRole::kCheckpoint);
  refuse_existing(target_);
  if (::rename(path_.c_str(), target_.c_str()) != 0) fail(target_, "create");
  committed_ = true;
  fsync_path(target_.has_parent_path() ? target_.parent_path() : fs::path("."),
             FileRole::kCheckpoint);
}

}  // namespace qianli::convert
