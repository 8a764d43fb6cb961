// Zip archives whose entries are stored as they are, which is what torch.save writes: every entry
// is a span of the archive. Compressed, encrypted and split archives are refused. (PKWARE,
// APPNOTE.TXT 6.3; zip64 included)
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/base/output_file.h"

namespace qianli::formats {

struct ZipEntry {
  std::string name;
  std::span<const std::byte> bytes;
  uint32_t crc32 = 0;  // as the directory says; not compared with the bytes
};

// `archive` is all bytes of an archive; the entries, in the order of its directory, point into it.
// Throws the error of `role` naming `source` and the reason for anything damaged, for two entries
// of one name, and for entries that overlap or reach beyond the archive.
std::vector<ZipEntry> parse_zip(std::span<const std::byte> archive, const std::string& source,
                                FileRole role);

// Throws where the bytes of an entry do not have its CRC-32.
void check_crc(const ZipEntry& entry, const std::string& source, FileRole role);

// Writes an archive piece by piece. Data of every entry begins at a multiple of 64 bytes, as torch
// does it for readers that map the file; zip64 is used where sizes, offsets or the number of
// entries demand it.
class ZipWriter {
 public:
  ZipWriter(const fs::path& path, FileRole role, FileGrowth growth = {});

  // An entry of exactly `num_bytes`, whose bytes follow by write(), cut anywhere. Ends the one
  // before.
  void begin(std::string name, uint64_t num_bytes);
  void write(std::span<const std::byte> bytes);
  // True where all bytes of the entry that was begun were found in the file: they count as written.
  bool skip();
  void add(std::string name, std::string_view bytes);
  // Writes the directory; the file appears under its name. Throws std::logic_error where bytes of
  // the last entry are missing.
  void commit();

 private:
  struct Written {
    std::string name;
    uint64_t header = 0;  // place of the local header
    uint64_t num_bytes = 0;
    uint32_t crc32 = 0;
  };
  void end_entry();

  OutputFile file_;
  std::vector<Written> entries_;
  uint64_t bytes_left_ = 0;
};

}  // namespace qianli::formats
