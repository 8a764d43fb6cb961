#include "qianli/convert/conversion_folder.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <sstream>
#include <vector>

#include "qianli/base/error.h"
#include "qianli/base/file_calls.h"
#include "qianli/base/log.h"
#include "qianli/base/progress.h"
#include "qianli/base/stop.h"
#include "qianli/convert/produce.h"

namespace qianli::convert {
namespace {

constexpr const char* kJournal = "journal";
constexpr uint64_t kMaxJournalBytes = uint64_t{256} << 20;

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

ConversionFolder::ConversionFolder(fs::path target, const std::string& identity, uint64_t step)
    : target_(std::move(target)), path_(working_name(target_)), step_(step) {
  refuse_existing(target_);
  create_folder(path_, FileRole::kCheckpoint);
  lock_.emplace(path_, FileRole::kCheckpoint, "is writing " + target_.string());
  if (read_journal(identity)) {
    if (found() == 0) return;
    log::info("convert", "going on in {}: {} are written", path_.string(), human_bytes(found()));
    return;
  }
  found_.clear();
  for (const auto& entry : fs::directory_iterator(path_)) fs::remove_all(entry.path());
  append(identity);
}

ConversionFolder::~ConversionFolder() {
  std::error_code ignored;
  if (!committed_ && stop_signal() == 0) fs::remove_all(path_, ignored);
}

bool ConversionFolder::read_journal(const std::string& identity) {
  const fs::path journal = path_ / kJournal;
  if (!fs::is_regular_file(journal)) return false;
  std::istringstream lines(read_file(journal, FileRole::kCheckpoint, kMaxJournalBytes));
  std::string line;
  if (!std::getline(lines, line) || lines.eof() || line != identity) return false;
  auto whole = static_cast<uint64_t>(lines.tellg());  // bytes of whole lines
  while (std::getline(lines, line) && !lines.eof()) {
    uint64_t size = 0;
    const char* end = line.data() + line.size();
    const auto [rest, error] = std::from_chars(line.data(), end, size);
    if (error != std::errc() || rest == end || *rest != ' ' || !is_inside(rest + 1)) return false;
    found_[rest + 1] = size;
    whole = static_cast<uint64_t>(lines.tellg());
  }
  for (const auto& [name, size] : found_) {
    std::error_code error;
    if (fs::file_size(path_ / name, error) < size || error) return false;
  }
  fs::resize_file(journal, whole);
  return true;
}

void ConversionFolder::append(const std::string& line) {
  const fs::path journal = path_ / kJournal;
  const int fd = ::open(journal.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) throw_errno(FileRole::kCheckpoint, "open", journal);
  const std::string text = line + "\n";
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       ::fsync(fd) == 0;
  const int code = errno;
  ::close(fd);
  errno = code;
  if (!written) throw_errno(FileRole::kCheckpoint, "write", journal);
}

uint64_t ConversionFolder::found() const {
  uint64_t bytes = 0;
  for (const auto& [name, size] : found_) bytes += size;
  return bytes;
}

void ConversionFolder::write(const std::string& name,
                             const std::function<void(FileGrowth)>& write) {
  create_folder((path_ / name).parent_path(), FileRole::kCheckpoint);
  const auto found = found_.find(name);
  write({.found = found == found_.end() ? 0 : found->second,
         .step = step_,
         .on_disk = [&](uint64_t bytes) { append(fmt::format("{} {}", bytes, name)); }});
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
  publish(path_);
}

void ConversionFolder::commit(const std::string& name) {
  publish(path_ / name);
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void ConversionFolder::publish(const fs::path& made) {
  refuse_existing(target_);
  if (::rename(made.c_str(), target_.c_str()) != 0)
    throw_errno(FileRole::kCheckpoint, "create", target_);
  committed_ = true;
  fsync_path(target_.has_parent_path() ? target_.parent_path() : fs::path("."),
             FileRole::kCheckpoint);
}

}  // namespace qianli::convert
