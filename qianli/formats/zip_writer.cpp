#include <fmt/core.h>

#include <stdexcept>

#include "qianli/formats/crc32.h"
#include "qianli/formats/zip.h"

namespace qianli::formats {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kIn64 = 0xffffffff;
constexpr size_t kLocalBytes = 30;
constexpr uint64_t kCrcOffset = 14;  // in a local header
constexpr uint16_t kUtf8 = 1 << 11;
constexpr uint16_t kVersion = 20, kVersion64 = 45;

template <class... Numbers>
std::string packed(Numbers... numbers) {
  std::string bytes;
  (bytes.append(reinterpret_cast<const char*>(&numbers), sizeof numbers), ...);
  return bytes;
}

uint32_t saturated(uint64_t value) { return static_cast<uint32_t>(std::min(value, kIn64)); }

// Fills up to the alignment in a field that readers skip: "FB", a length, and Zs.
std::string padding(uint64_t place) {
  const uint64_t missing = (kAlignment - (place + 4) % kAlignment) % kAlignment;
  return "FB" + packed(static_cast<uint16_t>(missing)) + std::string(missing, 'Z');
}

}  // namespace

ZipWriter::ZipWriter(const fs::path& path, FileRole role, FileGrowth growth)
    : file_(path, role, std::move(growth)) {}

void ZipWriter::begin(std::string name, uint64_t num_bytes) {
  end_entry();
  if (name.size() > 0xffff) throw std::logic_error("the name of a zip entry is too long");
  const bool large = num_bytes >= kIn64;
  std::string extra;
  if (large) extra = packed(uint16_t{1}, uint16_t{16}, num_bytes, num_bytes);
  const uint64_t header = file_.size();
  extra += padding(header + kLocalBytes + name.size() + extra.size());
  // The CRC follows when the bytes are known.
  file_.write(packed(uint32_t{0x04034b50}, large ? kVersion64 : kVersion, kUtf8, uint16_t{0},
                     uint16_t{0}, uint16_t{0x21}, uint32_t{0}, saturated(num_bytes),
                     saturated(num_bytes), static_cast<uint16_t>(name.size()),
                     static_cast<uint16_t>(extra.size())));
  file_.write(name);
  file_.write(extra);
  entries_.push_back({std::move(name), header, num_bytes, 0});
  bytes_left_ = num_bytes;
}

void ZipWriter::write(std::span<const std::byte> bytes) {
  if (entries_.empty() || bytes.size() > bytes_left_) {
    throw std::logic_error("more bytes than announced for a zip entry");
  }
  if (bytes.empty()) return;
  Written& entry = entries_.back();
  entry.crc32 = crc32(entry.crc32, bytes);
  // Before the last bytes, so that whoever finds those finds it.
  if (bytes.size() == bytes_left_) {
    file_.write_at(entry.header + kCrcOffset, &entry.crc32, sizeof entry.crc32);
  }
  file_.write(bytes.data(), bytes.size());
  bytes_left_ -= bytes.size();
}

bool ZipWriter::skip() {
  if (!file_.skip(bytes_left_)) return false;
  bytes_left_ = 0;
  Written& entry = entries_.back();
  file_.read_found(entry.header + kCrcOffset, &entry.crc32, sizeof entry.crc32);
  return true;
}

void ZipWriter::add(std::string name, std::string_view bytes) {
  begin(std::move(name), bytes.size());
  write(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

void ZipWriter::end_entry() {
  if (entries_.empty()) return;
  if (bytes_left_ > 0) {
    throw std::logic_error(
        fmt::format("{} bytes missing for zip entry {}", bytes_left_, entries_.back().name));
  }
}

void ZipWriter::commit() {
  end_entry();
  const uint64_t directory = file_.size();
  for (const Written& entry : entries_) {
    std::string extra;
    if (entry.num_bytes >= kIn64) extra += packed(entry.num_bytes, entry.num_bytes);
    if (entry.header >= kIn64) extra += packed(entry.header);
    const uint16_t version = extra.empty() ? kVersion : kVersion64;
    if (!extra.empty()) extra = packed(uint16_t{1}, static_cast<uint16_t>(extra.size())) + extra;
    file_.write(packed(uint32_t{0x02014b50}, version, version, kUtf8, uint16_t{0}, uint16_t{0},
                       uint16_t{0x21}, entry.crc32, saturated(entry.num_bytes),
                       saturated(entry.num_bytes), static_cast<uint16_t>(entry.name.size()),
                       static_cast<uint16_t>(extra.size()), uint16_t{0}, uint16_t{0}, uint16_t{0},
                       uint32_t{0}, saturated(entry.header)));
    file_.write(entry.name);
    file_.write(extra);
  }
  const uint64_t end = file_.size(), size = end - directory, count = entries_.size();
  if (count >= 0xffff || directory >= kIn64 || size >= kIn64) {
    file_.write(packed(uint32_t{0x06064b50}, uint64_t{44}, kVersion64, kVersion64, uint32_t{0},
                       uint32_t{0}, count, count, size, directory));
    file_.write(packed(uint32_t{0x07064b50}, uint32_t{0}, end, uint32_t{1}));
  }
  const auto short_count = static_cast<uint16_t>(std::min<uint64_t>(count, 0xffff));
  file_.write(packed(uint32_t{0x06054b50}, uint16_t{0}, uint16_t{0}, short_count, short_count,
                     saturated(size), saturated(directory), uint16_t{0}));
  file_.commit();
}

}  // namespace qianli::formats
