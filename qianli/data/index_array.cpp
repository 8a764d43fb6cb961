#include "qianli/data/index_array.h"

#include <fmt/core.h>

#include <charconv>
#include <string>
#include <string_view>

#include "qianli/base/error.h"

namespace qianli::data {
namespace {

using namespace std::string_view_literals;
constexpr std::string_view kMagic = "\x93NUMPY"sv;
constexpr size_t kMaxHeader = 4096;

struct TypeName {
  IndexArray::Type type;
  std::string_view descr;
  int64_t bytes;
};
constexpr TypeName kTypes[] = {{IndexArray::Type::kInt16, "<i2", 2},
                               {IndexArray::Type::kInt32, "<i4", 4},
                               {IndexArray::Type::kUint32, "<u4", 4},
                               {IndexArray::Type::kInt64, "<i8", 8}};

const TypeName& name_of(IndexArray::Type type) {
  for (const TypeName& entry : kTypes) {
    if (entry.type == type) return entry;
  }
  throw std::logic_error("unknown index type");
}

[[noreturn]] void refuse(const fs::path& path, std::string_view problem) {
  throw DataError("npy",
                  fmt::format("expected an integer array in {}, got {}", path.string(), problem),
                  "delete the file; it is made again");
}

// The text after `'key':` in the header's dictionary, without leading blanks.
std::string_view value_after(std::string_view header, std::string_view key, const fs::path& path) {
  const size_t place = header.find(fmt::format("'{}':", key));
  if (place == std::string_view::npos) refuse(path, fmt::format("no '{}' in the header", key));
  std::string_view rest = header.substr(place + key.size() + 3);
  const size_t text = rest.find_first_not_of(' ');
  return text == std::string_view::npos ? std::string_view() : rest.substr(text);
}

// "(4, 2)" or "(5,)"; at most two dimensions.
std::vector<int64_t> parse_shape(std::string_view text, const fs::path& path) {
  const size_t close = text.find(')');
  if (!text.starts_with('(') || close == std::string_view::npos) refuse(path, "a damaged shape");
  std::vector<int64_t> shape;
  for (const char *at = text.data() + 1, *end = text.data() + close; at < end;) {
    if (*at == ' ' || *at == ',') {
      ++at;
      continue;
    }
    int64_t value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 0) refuse(path, "a damaged shape");
    shape.push_back(value);
    at = next;
  }
  if (shape.empty() || shape.size() > 2) refuse(path, "a shape that has not one or two dimensions");
  return shape;
}

}  // namespace

IndexArray IndexArray::map_npy(const fs::path& path) {
  auto file = MappedFile::open(path, FileRole::kData);
  const std::string_view text(reinterpret_cast<const char*>(file->data()), file->size());
  if (text.size() < 12 || !text.starts_with(kMagic)) refuse(path, "no NPY header");
  const int version = static_cast<unsigned char>(text[6]);
  if (version < 1 || version > 3) refuse(path, fmt::format("NPY version {}", version));
  const size_t prefix = version == 1 ? 10 : 12;
  size_t header_bytes = 0;
  for (size_t i = prefix; i-- > 8;)
    header_bytes = header_bytes << 8 | static_cast<unsigned char>(text[i]);
  if (header_bytes > kMaxHeader || prefix + header_bytes > text.size())
    refuse(path, "a truncated header");
  const std::string_view header = text.substr(prefix, header_bytes);

  if (!value_after(header, "fortran_order", path).starts_with("False"))
    refuse(path, "Fortran order");
  const std::string_view descr = value_after(header, "descr", path);
  const TypeName* found = nullptr;
  for (const TypeName& entry : kTypes) {
    if (descr.size() > 5 && descr.substr(1, 3) == entry.descr && descr[4] == descr[0])
      found = &entry;
  }
  if (found == nullptr) refuse(path, fmt::format("another element type ({})", descr.substr(0, 8)));

  const auto shape = parse_shape(value_after(header, "shape", path), path);
  IndexArray array;
  array.type_ = found->type;
  array.rows_ = shape[0];
  array.columns_ = shape.size() == 2 ? shape[1] : 1;
  int64_t expected = 0;
  if (__builtin_mul_overflow(array.rows_, array.columns_, &expected) ||
      __builtin_mul_overflow(expected, found->bytes, &expected) ||
      static_cast<uint64_t>(expected) != text.size() - prefix - header_bytes) {
    refuse(path, fmt::format("{} bytes of data for shape ({}, {})",
                             text.size() - prefix - header_bytes, array.rows_, array.columns_));
  }
  array.bytes_ = file->bytes().subspan(prefix + header_bytes);
  array.owner_ = std::move(file);
  return array;
}

void IndexArray::save_npy(const fs::path& path) const {
  const std::string shape =
      columns_ == 1 ? fmt::format("({},)", rows_) : fmt::format("({}, {})", rows_, columns_);
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}",
                                   name_of(type_).descr, shape);
  const size_t unpadded = 10 + header.size() + 1;
  header.append((64 - unpadded % 64) % 64, ' ');
  header += '\n';
  AtomicFile file(path, FileRole::kData);
  file.write(kMagic);
  const unsigned char version_and_length[4] = {1, 0,
                                               static_cast<unsigned char>(header.size() & 0xff),
                                               static_cast<unsigned char>(header.size() >> 8)};
  file.write(version_and_length, 4);
  file.write(header);
  file.write(bytes_.data(), bytes_.size());
  file.commit();
}

}  // namespace qianli::data
