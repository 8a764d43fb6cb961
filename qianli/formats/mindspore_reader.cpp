// The wire format of protocol buffers is read by hand: libprotobuf keeps whole messages in memory
// and refuses those of 2 GiB, while here every tensor stays where it is in the mapped file.
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "qianli/formats/crc32.h"
#include "qianli/formats/little_endian.h"
#include "qianli/formats/mindspore_checkpoint.h"
#include "qianli/formats/mindspore_types.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr size_t kMaxDimensions = 64;

struct Field {
  uint64_t number = 0;
  bool is_bytes = false;
  uint64_t value = 0;                // a number
  std::span<const std::byte> bytes;  // a text, content or message
};

// The fields of one message.
class Message {
 public:
  Message(std::span<const std::byte> bytes, const std::string& source, FileRole role)
      : bytes_(bytes), source_(source), role_(role) {}

  bool at_end() const { return bytes_.empty(); }

  Field next() {
    Field field;
    const uint64_t key = varint();
    field.number = key >> 3;
    const auto wire = key & 7;
    if (wire == 0) {
      field.value = varint();
    } else if (wire == 1 || wire == 5) {
      take(wire == 1 ? 8 : 4);
    } else if (wire == 2) {
      field.is_bytes = true;
      field.bytes = take(varint());
    } else {
      reject(role_, source_, fmt::format("damaged: wire type {}", wire),
             "is it a .ckpt file of MindSpore?");
    }
    return field;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint64_t>(take(1)[0]);
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    reject(role_, source_, "damaged: a number of more than ten bytes");
  }

 private:
  std::span<const std::byte> take(uint64_t count) {
    if (count > bytes_.size()) {
      reject(role_, source_,
             fmt::format("truncated: a field of {} bytes, {} are left", count, bytes_.size()));
    }
    const auto taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }

  std::span<const std::byte> bytes_;
  const std::string& source_;
  FileRole role_;
};

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class MindsporeReader {
 public:
  MindsporeReader(std::span<const std::byte> file, const std::string& source, FileRole role)
      : file_(file), source_(source), role_(role) {}

  MindsporeContents read() {
    refuse_encrypted();
    strip_crc();
    Message values(file_, source_, role_);
    while (!values.at_end()) {
      const Field field = values.next();
      if (field.number == 1 && field.is_bytes) read_value(field.bytes);
    }
    finish_tensor();
    return std::move(contents_);
  }

 private:
  struct Draft {
    std::vector<int64_t> dims;
    std::string type;
    std::vector<std::span<const std::byte>> pieces;
  };

  [[noreturn]] void refuse(const std::string& reason, const std::string& hint = {}) const {
    reject(role_, source_, reason, hint);
  }
  [[noreturn]] void refuse_tensor(const std::string& reason) const {
    refuse(fmt::format("tensor {}: {}", shown_name(tag_), reason));
  }

  void refuse_encrypted() const {
    if (file_.size() < 4) return;
    const auto magic = load<uint32_t>(file_.data());
    if (magic < 0x7f3a5ed8 || magic > 0x7f3a5eda) return;
    refuse("the file is encrypted (AES or SM4)",
           "load it in MindSpore with its key and save it without enc_key");
  }

  void strip_crc() {
    const size_t tail = kMindsporeCrcMark.size() + kMindsporeCrcBytes;
    if (file_.size() < tail) return;
    const auto end = file_.last(tail);
    if (std::memcmp(end.data(), kMindsporeCrcMark.data(), kMindsporeCrcMark.size()) != 0) return;
    uint64_t stated = 0;
    for (const std::byte b : end.last(8)) stated = stated << 8 | static_cast<uint64_t>(b);
    file_ = file_.first(file_.size() - tail);
    const uint64_t actual = crc32(0, file_);
    if (stated == actual) return;
    refuse(fmt::format("expected the CRC-32 {:08x}, got {:08x}", stated, actual),
           "the file is damaged; copy or save it again");
  }

  void read_value(std::span<const std::byte> bytes) {
    Message value(bytes, source_, role_);
    std::string tag;
    Draft tensor;
    bool is_tensor = false, is_table = false;
    while (!value.at_end()) {
      const Field field = value.next();
      if (!field.is_bytes) continue;
      if (field.number == 1) tag = text_of(field.bytes);
      if (field.number == 2) {
        if (is_tensor) refuse("a value of two tensors");
        is_tensor = true;
        tensor = read_tensor(field.bytes);
      }
      if (field.number == 3) is_table = true;
    }
    if (is_table) {
      if (contents_.hash_tables.empty() || contents_.hash_tables.back() != tag) {
        contents_.hash_tables.push_back(tag);
      }
      return;
    }
    if (!is_tensor) refuse(fmt::format("the value {} holds no tensor", shown_name(tag)));
    join(std::move(tag), std::move(tensor));
  }

  Draft read_tensor(std::span<const std::byte> bytes) const {
    Message message(bytes, source_, role_);
    Draft tensor;
    while (!message.at_end()) {
      const Field field = message.next();
      if (field.number == 1 && !field.is_bytes) {
        add_dimension(tensor, field.value);
      } else if (field.number == 1) {  // packed, which newer protobuf writers may choose
        Message packed(field.bytes, source_, role_);
        while (!packed.at_end()) add_dimension(tensor, packed.varint());
      } else if (field.number == 2 && field.is_bytes) {
        tensor.type = text_of(field.bytes);
      } else if (field.number == 3 && field.is_bytes) {
        tensor.pieces = {field.bytes};
      }
    }
    return tensor;
  }

  void add_dimension(Draft& tensor, uint64_t size) const {
    if (size > static_cast<uint64_t>(INT64_MAX)) refuse("a negative dimension");
    if (tensor.dims.size() == kMaxDimensions) refuse("a tensor of too many dimensions");
    tensor.dims.push_back(static_cast<int64_t>(size));
  }

  // Pieces of one tensor stand side by side.
  void join(std::string tag, Draft tensor) {
    if (open_ && tag == tag_) {
      if (tensor.dims != draft_.dims || tensor.type != draft_.type) {
        refuse_tensor("its pieces differ in type or dimensions");
      }
      draft_.pieces.insert(draft_.pieces.end(), tensor.pieces.begin(), tensor.pieces.end());
      return;
    }
    finish_tensor();
    tag_ = std::move(tag);
    draft_ = std::move(tensor);
    open_ = true;
    if (!tags_.insert(tag_).second) refuse_tensor("stands in two places");
  }

  void finish_tensor() {
    if (!open_) return;
    open_ = false;
    uint64_t bytes = 0;
    for (const auto& piece : draft_.pieces) bytes += piece.size();
    if (draft_.type == kMindsporeText) {
      contents_.texts.emplace(tag_, utf8());
      return;
    }
    const auto type = std::ranges::find(kMindsporeTypes, std::string_view(draft_.type),
                                        &std::pair<std::string_view, Dtype>::first);
    if (type == std::end(kMindsporeTypes)) {
      refuse_tensor("unknown type " + shown_name(draft_.type));
    }
    TensorSpec spec{tag_, type->second, draft_.dims};
    // A scalar has no dimensions, or the one dimension 0.
    const bool zero = spec.shape == std::vector<int64_t>{0};
    if (zero && bytes * 8 == static_cast<uint64_t>(bit_size(spec.dtype))) spec.shape.clear();
    const auto expected = byte_size(spec.dtype, spec.shape);
    if (!expected) refuse_tensor("the size of its shape overflows");
    if (*expected != bytes) {
      refuse_tensor(fmt::format("{} of shape {} has {} bytes, got {}", draft_.type,
                                shape_text(spec.shape), *expected, bytes));
    }
    contents_.tensors.push_back({std::move(spec), std::move(draft_.pieces)});
  }

  // Texts are stored as UTF-32.
  std::string utf8() const {
    std::string units, text;
    for (const auto& piece : draft_.pieces) units += text_of(piece);
    if (units.size() % 4 != 0) refuse_tensor("expected text in UTF-32");
    for (size_t i = 0; i < units.size(); i += 4) {
      const auto c = load<uint32_t>(reinterpret_cast<const std::byte*>(units.data()) + i);
      if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) refuse_tensor("expected text in UTF-32");
      append_utf8(text, c);
    }
    return text;
  }

  static void append_utf8(std::string& text, uint32_t c) {
    if (c < 0x80) {
      text += static_cast<char>(c);
      return;
    }
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    constexpr unsigned kFirst[] = {0, 0xc0, 0xe0, 0xf0};
    text += static_cast<char>(kFirst[more] | c >> (6 * more));
    for (int i = more - 1; i >= 0; --i) text += static_cast<char>(0x80 | (c >> (6 * i) & 0x3f));
  }

  std::span<const std::byte> file_;
  const std::string& source_;
  FileRole role_;
  MindsporeContents contents_;
  bool open_ = false;  // draft_ is the tensor tag_, and more pieces may follow
  std::string tag_;
  Draft draft_;
  std::unordered_set<std::string> tags_;
};

}  // namespace

MindsporeContents parse_mindspore(std::span<const std::byte> file, const std::string& source,
                                  FileRole role) {
  return MindsporeReader(file, source, role).read();
}

}  // namespace qianli::formats
