#include "qianli/text/gzip.h"

#include <fmt/core.h>
#include <zlib.h>

#include <limits>

#include "qianli/base/error.h"

namespace qianli::text {
namespace {

[[noreturn]] void refuse(const std::string& source, const std::string& got) {
  throw DataError("tokenizer",
                  fmt::format("expected a whole gzip file at {}, got {}", source, got));
}

}  // namespace

bool is_gzip(std::string_view bytes) { return bytes.starts_with("\x1f\x8b"); }

std::string unpack_gzip(std::string_view bytes, uint64_t max_bytes, const std::string& source) {
  if (bytes.size() > std::numeric_limits<uInt>::max()) refuse(source, "one of 4 GiB or more");
  z_stream stream = {};
  // 16: a gzip header, not a zlib one.
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) throw std::bad_alloc();
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  std::string out;
  std::string block(size_t{1} << 20, '\0');
  int status = Z_OK;
  while (status == Z_OK && out.size() <= max_bytes) {
    stream.next_out = reinterpret_cast<Bytef*>(block.data());
    stream.avail_out = static_cast<uInt>(block.size());
    status = inflate(&stream, Z_NO_FLUSH);
    out.append(block, 0, block.size() - stream.avail_out);
  }
  inflateEnd(&stream);
  if (out.size() > max_bytes) refuse(source, fmt::format("more than {} bytes unpacked", max_bytes));
  if (status != Z_STREAM_END) refuse(source, "one that is damaged or cut short");
  return out;
}

}  // namespace qianli::text
