#include "qianli/base/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>

#include "qianli/base/file_calls.h"

namespace qianli {
namespace {

constexpr size_t kWriteBuffer = size_t{1} << 20;
// The disk begins to write so many bytes while the next ones are made: flushing waits for few.
constexpr uint64_t kWriteBack = uint64_t{16} << 20;

}  // namespace

OutputFile::OutputFile(fs::path path, FileRole role, FileGrowth growth)
    : path_(std::move(path)),
      role_(role),
      growth_(std::move(growth)),
      on_disk_(growth_.found),
      writing_(growth_.found) {
  if (!growth_.on_disk) {
    atomic_.emplace(path_, role_);
    return;
  }
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) throw_errno(role_, "create", path_);
  const auto found = static_cast<off_t>(growth_.found);
  if (::ftruncate(fd_, found) != 0 || ::lseek(fd_, found, SEEK_SET) != found) {
    const int code = errno;
    ::close(fd_);
    errno = code;
    throw_errno(role_, "create", path_);
  }
  buffer_.reserve(kWriteBuffer);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void OutputFile::write(const void* data, size_t bytes) {
  const auto* from = static_cast<const char*>(data);
  const uint64_t found = std::max(growth_.found, size_) - size_;
  size_ += bytes;
  if (atomic_) return atomic_->write(data, bytes);
  const size_t dropped = std::min<uint64_t>(bytes, found);
  from += dropped;
  bytes -= dropped;
  if (buffer_.size() + bytes > kWriteBuffer) flush();
  if (bytes >= kWriteBuffer) {
    write_all(fd_, from, bytes, -1, role_, path_);
  } else {
    buffer_.append(from, bytes);
  }
  if (size_ >= writing_ + kWriteBack) {
    ::sync_file_range(fd_, static_cast<off_t>(writing_), 0, SYNC_FILE_RANGE_WRITE);
    writing_ = size_;
  }
  if (size_ >= on_disk_ + growth_.step) sync();
}

void OutputFile::write_at(uint64_t offset, const void* data, size_t bytes) {
  if (atomic_) return atomic_->write_at(offset, data, bytes);
  flush();
  write_all(fd_, static_cast<const char*>(data), bytes, static_cast<int64_t>(offset), role_, path_);
}

bool OutputFile::skip(uint64_t bytes) {
  if (size_ >= growth_.found || bytes > growth_.found - size_) return false;
  size_ += bytes;
  return true;
}

void OutputFile::read_found(uint64_t offset, void* data, size_t bytes) const {
  const ssize_t got = ::pread(fd_, data, bytes, static_cast<off_t>(offset));
  if (got != static_cast<ssize_t>(bytes)) throw_errno(role_, "read", path_);
}

void OutputFile::flush() {
  write_all(fd_, buffer_.data(), buffer_.size(), -1, role_, path_);
  buffer_.clear();
}

void OutputFile::sync() {
  flush();
  if (::fsync(fd_) != 0) throw_errno(role_, "flush", path_);
  if (size_ > on_disk_) growth_.on_disk(size_);
  on_disk_ = size_;
}

void OutputFile::commit() {
  if (atomic_) return atomic_->commit();
  if (size_ < growth_.found) {
    throw std::logic_error(path_.string() + " is shorter than what was found of it");
  }
  sync();
  fsync_path(path_.has_parent_path() ? path_.parent_path() : fs::path("."), role_);
}

}  // namespace qianli
