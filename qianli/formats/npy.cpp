#include "qianli/formats/npy.h"

#include <fmt/core.h>

#include <charconv>
#include <stdexcept>
#include <string_view>

#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr size_t kAlignment = 64;
constexpr uint64_t kMaxHeaderBytes = 1 << 16;

std::string descr_of(bool is_signed, int element_bytes) {
  return fmt::format("{}{}{}", element_bytes == 1 ? '|' : '<', is_signed ? 'i' : 'u',
                     element_bytes);
}

// The header: a Python dictionary of three known keys, read without being Python.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& source, FileRole role)
      : text_(text), source_(source), role_(role) {}

  void read_into(NpyArray& array) {
    expect('{');
    while (!accept('}')) {
      read_entry(array, quoted_text());
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_blanks();
    if (!text_.empty()) refuse("unexpected text after the header");
    if (seen_ != (kDescr | kOrder | kShape)) {
      refuse("expected descr, fortran_order and shape in the header");
    }
    if (fortran_order_ && array.shape.size() > 1) {
      refuse("expected rows (fortran_order False), got columns");
    }
  }

 private:
  static constexpr int kDescr = 1, kOrder = 2, kShape = 4;

  [[noreturn]] void refuse(const std::string& reason) const { reject(role_, source_, reason); }

  void read_entry(NpyArray& array, const std::string& key) {
    expect(':');
    if (key == "descr") {
      mark(kDescr);
      read_descr(array);
    } else if (key == "fortran_order") {
      mark(kOrder);
      read_order();
    } else if (key == "shape") {
      mark(kShape);
      read_shape(array);
    } else {
      refuse(fmt::format("unknown key {} in the header", shown_name(key)));
    }
  }

  void mark(int key) {
    if (seen_ & key) refuse("duplicate key in the header");
    seen_ |= key;
  }

  void skip_blanks() {
    const size_t first = text_.find_first_not_of(" \t\n\r");
    text_.remove_prefix(first == text_.npos ? text_.size() : first);
  }

  bool accept(char c) {
    skip_blanks();
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }

  void expect(char c) {
    if (!accept(c)) refuse(fmt::format("expected '{}' in the header", c));
  }

  std::string quoted_text() {
    skip_blanks();
    const char quote = text_.empty() ? '\0' : text_.front();
    const size_t end = quote == '\'' || quote == '"' ? text_.find(quote, 1) : text_.npos;
    if (end == text_.npos) refuse("expected a text in quotes in the header");
    std::string text(text_.substr(1, end - 1));
    text_.remove_prefix(end + 1);
    return text;
  }

  void read_descr(NpyArray& array) {
    const std::string descr = quoted_text();
    for (const bool is_signed : {true, false}) {
      for (const int bytes : {1, 2, 4, 8}) {
        const std::string known = descr_of(is_signed, bytes);
        if (descr == known || (bytes == 1 && descr == "<" + known.substr(1))) {
          array.is_signed = is_signed;
          array.element_bytes = bytes;
          return;
        }
      }
    }
    refuse(fmt::format("expected little-endian whole numbers, got descr {}", shown_name(descr)));
  }

  void read_order() {
    skip_blanks();
    fortran_order_ = text_.starts_with("True");
    if (!fortran_order_ && !text_.starts_with("False")) refuse("expected True or False");
    text_.remove_prefix(fortran_order_ ? 4 : 5);
  }

  void read_shape(NpyArray& array) {
    expect('(');
    while (!accept(')')) {
      skip_blanks();
      int64_t dimension = -1;
      const auto [end, error] =
          std::from_chars(text_.data(), text_.data() + text_.size(), dimension);
      if (error != std::errc() || dimension < 0) refuse("expected whole numbers in the shape");
      text_.remove_prefix(static_cast<size_t>(end - text_.data()));
      if (array.shape.size() == 2) refuse("expected one or two dimensions, got more");
      array.shape.push_back(dimension);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    if (array.shape.empty()) refuse("expected one or two dimensions, got none");
  }

  std::string_view text_;
  const std::string& source_;
  FileRole role_;
  int seen_ = 0;
  bool fortran_order_ = false;
};

// Splits a file into its header text and its data.
std::string_view header_text(std::span<const std::byte> file, const std::string& source,
                             FileRole role, std::span<const std::byte>& data) {
  const auto refuse = [&](const std::string& reason) { reject(role, source, reason); };
  if (file.size() < 10) refuse(fmt::format("truncated: {} bytes are no .npy file", file.size()));
  if (std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) {
    refuse("not a .npy file (it does not begin with \\x93NUMPY)");
  }
  const int version = load<uint8_t>(&file[6]);
  if (version < 1 || version > 3 || load<uint8_t>(&file[7]) != 0) {
    refuse(fmt::format("expected format version 1.0, 2.0 or 3.0, got {}.{}", version,
                       load<uint8_t>(&file[7])));
  }
  const size_t start = version == 1 ? 10 : 12;
  if (file.size() < start) refuse("truncated in the header");
  const uint64_t length = version == 1 ? load<uint16_t>(&file[8]) : load<uint32_t>(&file[8]);
  if (length > kMaxHeaderBytes) refuse(fmt::format("a header of {} bytes is too long", length));
  if (length > file.size() - start) refuse("truncated in the header");
  data = file.subspan(start + length);
  return {reinterpret_cast<const char*>(file.data()) + start, length};
}

}  // namespace

std::string NpyArray::descr() const { return descr_of(is_signed, element_bytes); }

int64_t NpyArray::num_elements() const {
  return static_cast<int64_t>(bytes.size()) / element_bytes;
}

void NpyArray::check_type(bool wants_signed, int wanted_bytes) const {
  if (is_signed == wants_signed && element_bytes == wanted_bytes) return;
  reject(role, source,
         fmt::format("expected elements '{}', got '{}'", descr_of(wants_signed, wanted_bytes),
                     descr()));
}

NpyArray parse_npy(std::span<const std::byte> file, const std::string& source, FileRole role) {
  NpyArray array;
  array.source = source;
  array.role = role;
  const std::string_view header = header_text(file, source, role, array.bytes);
  HeaderReader(header, source, role).read_into(array);
  uint64_t elements = 1;
  for (const int64_t dimension : array.shape) {
    if (dimension > 0 && elements > static_cast<uint64_t>(INT64_MAX) / 8 / dimension) {
      reject(role, source, "the size of its shape overflows");
    }
    elements *= static_cast<uint64_t>(dimension);
  }
  if (elements * array.element_bytes != array.bytes.size()) {
    reject(role, source,
           fmt::format("its shape needs {} bytes of data, got {}", elements * array.element_bytes,
                       array.bytes.size()));
  }
  return array;
}

NpyFile NpyFile::open(const fs::path& path, FileRole role) {
  auto map = MappedFile::open(path, role);
  NpyArray array = parse_npy(map->bytes(), path.string(), role);
  return {std::move(map), std::move(array)};
}

void write_npy_bytes(const fs::path& path, std::span<const std::byte> values, bool is_signed,
                     int element_bytes, int64_t columns, FileRole role) {
  const auto elements = static_cast<int64_t>(values.size()) / element_bytes;
  if (columns < 0 || (columns > 0 && elements % columns != 0)) {
    throw std::logic_error(fmt::format("{} elements do not make rows of {}", elements, columns));
  }
  const std::string shape = columns == 0 ? fmt::format("({},)", elements)
                                         : fmt::format("({}, {})", elements / columns, columns);
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}",
                                   descr_of(is_signed, element_bytes), shape);
  constexpr size_t kFront = 10;
  const size_t total = (kFront + header.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
  // NumPy leaves room for the shape to grow, so its headers always fill two blocks.
  header.resize(std::max<size_t>(total, 2 * kAlignment) - kFront - 1, ' ');
  header += '\n';
  const auto size = static_cast<uint16_t>(header.size());
  AtomicFile file(path, role);
  file.write(kMagic);
  file.write(std::string_view("\x01\x00", 2));
  file.write(&size, sizeof size);
  file.write(header);
  file.write(values.data(), values.size());
  file.commit();
}

}  // namespace qianli::formats
