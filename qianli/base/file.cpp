#include "qianli/base/file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "qianli/base/error.h"
#include "qianli/base/file_calls.h"

namespace qianli {
namespace {

constexpr size_t kWriteBuffer = size_t{1} << 20;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

fs::path temporary_name(const fs::path& path) {
  return path.parent_path() / fmt::format(".{}.tmp-{}", path.filename().string(), ::getpid());
}

fs::path parent_or_dot(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

int open_regular(const fs::path& path, FileRole role, struct stat& info) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_errno(role, "open", path);
  if (::fstat(fd, &info) != 0 || S_ISDIR(info.st_mode)) {
    ::close(fd);
    throw_file_error(role, fmt::format("expected a file, got a folder: {}", path.string()));
  }
  return fd;
}

}  // namespace

void throw_file_error(FileRole role, const std::string& problem, const std::string& hint) {
  switch (role) {
    case FileRole::kConfig:
      throw ConfigError("file", problem, hint);
    case FileRole::kCheckpoint:
      throw CheckpointError("file", problem, hint);
    case FileRole::kData:
      break;
  }
  throw DataError("file", problem, hint);
}

std::string read_file(const fs::path& path, FileRole role, uint64_t max_bytes) {
  struct stat info {};
  Descriptor file(open_regular(path, role, info));
  std::string text;
  // Pipes and /proc files report size 0, so read until the end rather than trusting the size.
  text.reserve(std::min<uint64_t>(static_cast<uint64_t>(info.st_size) + 1, max_bytes));
  char chunk[1 << 16];
  for (;;) {
    const ssize_t got = ::read(file.get(), chunk, sizeof chunk);
    if (got < 0) {
      if (errno == EINTR) continue;
      throw_errno(role, "read", path);
    }
    if (got == 0) return text;
    text.append(chunk, static_cast<size_t>(got));
    if (text.size() > max_bytes) {
      throw_file_error(
          role, fmt::format("expected at most {} bytes in {}, got more", max_bytes, path.string()));
    }
  }
}

void create_folder(const fs::path& path, FileRole role) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) {
    throw_file_error(role,
                     fmt::format("cannot create folder {}: {}", path.string(), error.message()),
                     "check the permissions of its parent");
  }
}

void write_file_atomically(const fs::path& path, std::string_view bytes, FileRole role) {
  AtomicFile file(path, role);
  file.write(bytes);
  file.commit();
}

void fsync_path(const fs::path& path, FileRole role) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0 || ::fsync(file.get()) != 0) throw_errno(role, "flush", path);
}

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path, FileRole role) {
  struct stat info {};
  Descriptor file(open_regular(path, role, info));
  const auto size = static_cast<size_t>(info.st_size);
  void* data = nullptr;
  if (size > 0) {
    data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
    if (data == MAP_FAILED) throw_errno(role, "map", path);
  }
  return std::shared_ptr<const MappedFile>(
      new MappedFile(path, static_cast<const std::byte*>(data), size));
}

MappedFile::MappedFile(fs::path path, const std::byte* data, size_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::advise_sequential() const {
  if (size_ > 0) ::madvise(const_cast<std::byte*>(data_), size_, MADV_SEQUENTIAL);
}

AtomicFile::AtomicFile(fs::path path, FileRole role)
    : path_(std::move(path)), temporary_(temporary_name(path_)), role_(role) {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) throw_errno(role_, "create", path_);
  buffer_.reserve(kWriteBuffer);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  std::error_code ignored;
  fs::remove(temporary_, ignored);
}

void AtomicFile::write(const void* data, size_t bytes) {
  if (buffer_.size() + bytes > kWriteBuffer) flush();
  if (bytes >= kWriteBuffer) {
    write_all(fd_, static_cast<const char*>(data), bytes, -1, role_, path_);
  } else {
    buffer_.append(static_cast<const char*>(data), bytes);
  }
  size_ += bytes;
}

void AtomicFile::write_at(uint64_t offset, const void* data, size_t bytes) {
  flush();
  write_all(fd_, static_cast<const char*>(data), bytes, static_cast<int64_t>(offset), role_, path_);
}

void AtomicFile::flush() {
  write_all(fd_, buffer_.data(), buffer_.size(), -1, role_, path_);
  buffer_.clear();
}

void AtomicFile::commit() {
  flush();
  if (::fsync(fd_) != 0) throw_errno(role_, "flush", path_);
  const int fd = fd_;
  if (::close(fd) != 0) throw_errno(role_, "close", path_);
  fd_ = -1;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int code = errno;
    ::unlink(temporary_.c_str());
    errno = code;
    throw_errno(role_, "create", path_);
  }
  fsync_path(parent_or_dot(path_), role_);
}

AtomicFolder::AtomicFolder(fs::path final_path, FileRole role)
    : final_(std::move(final_path)), temporary_(temporary_name(final_)), role_(role) {
  std::error_code error;
  fs::remove_all(temporary_, error);
  if (!fs::create_directories(temporary_, error) || error) {
    throw_file_error(
        role_, fmt::format("cannot create folder {}: {}", temporary_.string(), error.message()),
        "check the permissions of the parent folder");
  }
}

AtomicFolder::~AtomicFolder() {
  if (committed_) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

void AtomicFolder::commit() {
  fsync_path(temporary_, role_);
  if (fs::exists(final_)) {
    throw_file_error(role_, fmt::format("{} exists already", final_.string()),
                     "choose another name; nothing was overwritten");
  }
  if (::rename(temporary_.c_str(), final_.c_str()) != 0) throw_errno(role_, "create", final_);
  committed_ = true;
  fsync_path(parent_or_dot(final_), role_);
}

void AtomicFolder::commit_replacing() {
  if (!fs::exists(final_)) return commit();
  if (!fs::is_directory(final_)) {
    throw_file_error(role_, fmt::format("expected a folder, got a file: {}", final_.string()));
  }
  fsync_path(temporary_, role_);
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, final_.c_str(), RENAME_EXCHANGE) != 0) {
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) {
      throw_errno(role_, "replace", final_);
    }
    const fs::path old = temporary_.string() + "-old";
    if (::rename(final_.c_str(), old.c_str()) != 0 ||
        ::rename(temporary_.c_str(), final_.c_str()) != 0 ||
        ::rename(old.c_str(), temporary_.c_str()) != 0) {
      throw_errno(role_, "replace", final_);
    }
  }
  fsync_path(parent_or_dot(final_), role_);
  // The old folder has the temporary name now.
  std::error_code error;
  fs::remove_all(temporary_, error);
  committed_ = true;
}

uint64_t free_disk_bytes(const fs::path& path) {
  fs::path place = fs::absolute(path);
  while (!fs::exists(place) && place.has_relative_path()) place = place.parent_path();
  std::error_code error;
  const auto space = fs::space(place, error);
  return error ? 0 : static_cast<uint64_t>(space.available);
}

}  // namespace qianli
