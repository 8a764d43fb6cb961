#include "qianli/data/unpacked.h"

#include <fmt/core.h>
#include <zlib.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/formats/columnar.h"

namespace qianli::data {
namespace {

class GzipReader {
 public:
  explicit GzipReader(const fs::path& path)
      : path_(path), file_(gzopen(path.c_str(), "rb"), gzclose_r) {
    if (!file_) throw DataError("data", fmt::format("cannot open {}", path.string()));
  }

  // 0 at the end.
  size_t read(std::vector<char>& buffer) {
    const int got = gzread(file_.get(), buffer.data(), static_cast<unsigned>(buffer.size()));
    int code = Z_OK;
    const char* reason = gzerror(file_.get(), &code);
    // At the end: a file that ends in the middle of a block.
    if (got < 0 || (got == 0 && code != Z_OK))
      throw DataError("data", fmt::format("{} is damaged: {}", path_.string(), reason));
    return static_cast<size_t>(got);
  }

 private:
  fs::path path_;
  std::unique_ptr<gzFile_s, int (*)(gzFile)> file_;
};

bool is_gzip(const fs::path& path) { return path.extension() == ".gz"; }

void unpack_gzip(const fs::path& packed, AtomicFile& out) {
  GzipReader reader(packed);
  std::vector<char> buffer(size_t{1} << 20);
  while (const size_t got = reader.read(buffer)) {
    throw_if_stopped("data");
    out.write(buffer.data(), got);
  }
}

void unpack_table(const fs::path& packed, AtomicFile& out) {
  formats::read_columnar(packed, std::nullopt, [&](std::string_view lines) {
    throw_if_stopped("data");
    out.write(lines);
    return true;
  });
}

}  // namespace

bool is_packed(const fs::path& path) { return is_gzip(path) || formats::is_columnar(path); }

fs::path unpacked_name(const fs::path& name) {
  if (is_gzip(name)) return name.stem();
  if (formats::is_columnar(name)) return fs::path(name.filename()).replace_extension(".jsonl");
  return name.filename();
}

void unpack(const fs::path& packed, const fs::path& unpacked) {
  AtomicFile out(unpacked, FileRole::kData);
  if (is_gzip(packed))
    unpack_gzip(packed, out);
  else
    unpack_table(packed, out);
  out.commit();
}

std::string first_unpacked_bytes(const fs::path& packed, size_t most_bytes, int64_t most_rows) {
  std::string bytes;
  if (formats::is_columnar(packed)) {
    formats::read_columnar(packed, most_rows, [&](std::string_view lines) {
      bytes.append(lines.substr(0, most_bytes - bytes.size()));
      return bytes.size() < most_bytes;
    });
    return bytes;
  }
  GzipReader reader(packed);
  std::vector<char> buffer(size_t{1} << 20);
  while (bytes.size() < most_bytes) {
    const size_t got = reader.read(buffer);
    if (got == 0) break;
    bytes.append(buffer.data(), std::min(got, most_bytes - bytes.size()));
  }
  return bytes;
}

}  // namespace qianli::data
