#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_set>

#include "qianli/formats/crc32.h"
#include "qianli/formats/little_endian.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/zip.h"

namespace qianli::formats {
namespace {

constexpr uint32_t kLocalSignature = 0x04034b50, kCentralSignature = 0x02014b50,
                   kEndSignature = 0x06054b50, kEnd64Signature = 0x06064b50,
                   kLocator64Signature = 0x07064b50;
constexpr size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56,
                 kLocator64Bytes = 20;
constexpr uint32_t kIn64 = 0xffffffff;  // "the value stands in the zip64 field"
constexpr uint16_t kZip64Id = 0x0001;

class ZipReader {
 public:
  ZipReader(std::span<const std::byte> archive, const std::string& source, FileRole role)
      : archive_(archive), source_(source), role_(role) {}

  std::vector<ZipEntry> read() {
    find_directory();
    // The smallest record has 46 bytes, so a count that does not fit is refused before any memory.
    if (num_entries_ > directory_.size() / kCentralBytes) {
      refuse(fmt::format("{} entries do not fit into a directory of {} bytes", num_entries_,
                         directory_.size()));
    }
    for (uint64_t i = 0; i < num_entries_; ++i) read_record();
    check_overlap();
    return std::move(entries_);
  }

 private:
  struct Range {
    uint64_t begin, end;
    size_t entry;
  };

  [[noreturn]] void refuse(const std::string& reason, const std::string& hint = {}) const {
    reject(role_, source_, reason, hint);
  }

  template <class T>
  T at(uint64_t place) const {
    return load<T>(archive_.data() + place);
  }

  // The record at the end that is followed by exactly its comment.
  uint64_t find_end() const {
    if (archive_.size() >= kEndBytes) {
      const uint64_t last = archive_.size() - kEndBytes;
      const uint64_t first = last - std::min<uint64_t>(last, 0xffff);
      for (uint64_t place = last + 1; place-- > first;) {
        if (at<uint32_t>(place) == kEndSignature && at<uint16_t>(place + 20) == last - place) {
          return place;
        }
      }
    }
    refuse("not a complete zip archive (no directory at its end)",
           "the file may be truncated; copy or save it again");
  }

  void find_directory() {
    uint64_t end = find_end();
    if (at<uint16_t>(end + 4) != 0 || at<uint16_t>(end + 6) != 0) refuse("split zip archive");
    num_entries_ = at<uint16_t>(end + 10);
    uint64_t size = at<uint32_t>(end + 12), offset = at<uint32_t>(end + 16);
    const uint64_t short_count = num_entries_, short_size = size, short_offset = offset;
    if (end >= kLocator64Bytes && at<uint32_t>(end - kLocator64Bytes) == kLocator64Signature) {
      const auto place = at<uint64_t>(end - kLocator64Bytes + 8);
      end -= kLocator64Bytes;
      if (end < kEnd64Bytes || place > end - kEnd64Bytes ||
          at<uint32_t>(place) != kEnd64Signature) {
        refuse("damaged zip64 directory");
      }
      num_entries_ = at<uint64_t>(place + 32);
      size = at<uint64_t>(place + 40);
      offset = at<uint64_t>(place + 48);
      end = place;
      const auto agree = [](uint64_t full, uint64_t small, uint64_t saturated) {
        return small == saturated || full == small;
      };
      if (!agree(num_entries_, short_count, 0xffff) || !agree(size, short_size, kIn64) ||
          !agree(offset, short_offset, kIn64)) {
        refuse("its two directories disagree");
      }
    }
    if (offset > end || size > end - offset) {
      refuse(fmt::format("its directory of {} bytes at {} leaves the archive", size, offset));
    }
    directory_ = archive_.subspan(offset, size);
    data_end_ = offset;
  }

  // Sizes and place of an entry that the zip64 field gives in place of saturated ones.
  void read_zip64(std::span<const std::byte> extra, uint64_t& full, uint64_t& packed,
                  uint64_t& header) const {
    while (extra.size() >= 4) {
      const auto id = load<uint16_t>(extra.data());
      const size_t size = load<uint16_t>(extra.data() + 2);
      extra = extra.subspan(4);
      if (size > extra.size()) return;
      if (id == kZip64Id) {
        std::span<const std::byte> field = extra.first(size);
        for (uint64_t* value : {&full, &packed, &header}) {
          if (*value != kIn64) continue;
          if (field.size() < 8) refuse("damaged zip64 field");
          *value = load<uint64_t>(field.data());
          field = field.subspan(8);
        }
        return;
      }
      extra = extra.subspan(size);
    }
  }

  void read_record() {
    if (directory_.size() < kCentralBytes ||
        load<uint32_t>(directory_.data()) != kCentralSignature) {
      refuse("damaged directory");
    }
    const std::byte* record = directory_.data();
    const size_t name_bytes = load<uint16_t>(record + 28),
                 extra_bytes = load<uint16_t>(record + 30),
                 comment_bytes = load<uint16_t>(record + 32);
    const size_t record_bytes = kCentralBytes + name_bytes + extra_bytes + comment_bytes;
    if (record_bytes > directory_.size()) refuse("damaged directory");
    ZipEntry entry;
    entry.name.assign(reinterpret_cast<const char*>(record) + kCentralBytes, name_bytes);
    entry.crc32 = load<uint32_t>(record + 16);
    uint64_t packed = load<uint32_t>(record + 20), full = load<uint32_t>(record + 24),
             header = load<uint32_t>(record + 42);
    read_zip64(directory_.subspan(kCentralBytes + name_bytes, extra_bytes), full, packed, header);
    if (load<uint16_t>(record + 8) & 1) refuse_entry(entry, "it is encrypted");
    const int method = load<uint16_t>(record + 10);
    if (method != 0 || full != packed) {
      refuse_entry(entry, fmt::format("expected stored bytes, got compression method {} ({} bytes "
                                      "in {})",
                                      method, full, packed));
    }
    place(std::move(entry), header, full);
    directory_ = directory_.subspan(record_bytes);
  }

  void place(ZipEntry entry, uint64_t header, uint64_t size) {
    if (data_end_ < kLocalBytes || header > data_end_ - kLocalBytes ||
        at<uint32_t>(header) != kLocalSignature) {
      refuse_entry(entry, fmt::format("no header at byte {}", header));
    }
    const size_t name_bytes = at<uint16_t>(header + 26);
    const uint64_t begin = header + kLocalBytes + name_bytes + at<uint16_t>(header + 28);
    if (begin > data_end_ || size > data_end_ - begin) {
      refuse_entry(entry, fmt::format("its {} bytes at {} leave the archive", size, begin));
    }
    const bool same_name =
        name_bytes == entry.name.size() &&
        std::memcmp(archive_.data() + header + kLocalBytes, entry.name.data(), name_bytes) == 0;
    if (!same_name) refuse_entry(entry, "its header has another name");
    if (!names_.insert(entry.name).second) refuse_entry(entry, "a second entry of this name");
    entry.bytes = archive_.subspan(begin, size);
    ranges_.push_back({header, begin + size, entries_.size()});
    entries_.push_back(std::move(entry));
  }

  void check_overlap() {
    std::ranges::sort(ranges_, {}, &Range::begin);
    for (size_t i = 1; i < ranges_.size(); ++i) {
      if (ranges_[i].begin < ranges_[i - 1].end) {
        refuse_entry(entries_[ranges_[i].entry],
                     "overlaps " + shown_name(entries_[ranges_[i - 1].entry].name));
      }
    }
  }

  [[noreturn]] void refuse_entry(const ZipEntry& entry, const std::string& reason) const {
    refuse(fmt::format("entry {}: {}", shown_name(entry.name), reason));
  }

  std::span<const std::byte> archive_;
  const std::string& source_;
  FileRole role_;
  std::span<const std::byte> directory_;
  uint64_t data_end_ = 0;  // where the directory begins
  uint64_t num_entries_ = 0;
  std::vector<ZipEntry> entries_;
  std::vector<Range> ranges_;
  std::unordered_set<std::string> names_;
};

}  // namespace

std::vector<ZipEntry> parse_zip(std::span<const std::byte> archive, const std::string& source,
                                FileRole role) {
  return ZipReader(archive, source, role).read();
}

void check_crc(const ZipEntry& entry, const std::string& source, FileRole role) {
  if (crc32(0, entry.bytes) == entry.crc32) return;
  reject(role, source,
         fmt::format("entry {}: its bytes do not have its CRC-32", shown_name(entry.name)),
         "the file is damaged; copy or save it again");
}

}  // namespace qianli::formats
