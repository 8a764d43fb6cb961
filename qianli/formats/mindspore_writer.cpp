#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <stdexcept>

#include "qianli/base/log.h"
#include "qianli/formats/crc32.h"
#include "qianli/formats/mindspore_checkpoint.h"
#include "qianli/formats/mindspore_types.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

// The front of a field of bytes: its number and length.
std::string field(int number, uint64_t length) {
  return static_cast<char>(number << 3 | 2) + varint(length);
}

std::string text_field(int number, std::string_view text) {
  return field(number, text.size()).append(text);
}

class MindsporeWriter {
 public:
  MindsporeWriter(const fs::path& path, MindsporeOptions options, FileRole role, FileGrowth growth)
      : path_(path.string()),
        options_(options),
        role_(role),
        file_(path, role, std::move(growth)) {}

  void write(const TensorSpec& tensor, const TensorProducer& produce) {
    const uint64_t size = checked_size(tensor);
    if (size == 0) {
      log::warn("mindspore", "{}: tensor {} has no elements and is left out", path_,
                shown_name(tensor.name));
      return;
    }
    // The sum over the whole file needs all bytes.
    if (!options_.crc && file_.skip(encoded_bytes(tensor, size))) return produce(tensor, {});
    uint64_t given = 0, piece_left = 0;
    produce(tensor, [&](std::span<const std::byte> bytes) {
      if (bytes.size() > size - given) {
        throw std::logic_error(
            fmt::format("tensor {}: more than {} bytes given", tensor.name, size));
      }
      while (!bytes.empty()) {
        if (piece_left == 0) {
          piece_left = std::min(size - given, options_.max_piece_bytes);
          put(front_of_piece(tensor, piece_left));
        }
        const auto now = bytes.first(std::min<uint64_t>(bytes.size(), piece_left));
        put({reinterpret_cast<const char*>(now.data()), now.size()});
        bytes = bytes.subspan(now.size());
        piece_left -= now.size();
        given += now.size();
      }
    });
    if (given != size) {
      throw std::logic_error(
          fmt::format("tensor {}: {} bytes announced, {} given", tensor.name, size, given));
    }
  }

  void commit() {
    if (options_.crc) {
      std::string tail(kMindsporeCrcMark);
      for (int i = static_cast<int>(kMindsporeCrcBytes) - 1; i >= 0; --i) {
        tail += i < 4 ? static_cast<char>(crc_ >> (8 * i)) : '\0';
      }
      file_.write(tail);
    }
    file_.commit();
  }

 private:
  uint64_t checked_size(const TensorSpec& tensor) {
    const auto refuse = [&](const std::string& reason) {
      reject(role_, path_, fmt::format("tensor {}: {}", shown_name(tensor.name), reason));
    };
    if (tensor.name.empty()) refuse("a tensor needs a name");
    if (!names_.insert(tensor.name).second) refuse("stands in two places");
    if (type_name(tensor.dtype).empty()) {
      refuse(fmt::format("MindSpore's checkpoints have no type {}", dtype_name(tensor.dtype)));
    }
    const auto size = byte_size(tensor.dtype, tensor.shape);
    if (!size) refuse("its shape has no valid size");
    return *size;
  }

  static std::string_view type_name(Dtype dtype) {
    for (const auto& [name, known] : kMindsporeTypes) {
      if (known == dtype) return name;
    }
    return "";
  }

  uint64_t encoded_bytes(const TensorSpec& tensor, uint64_t size) const {
    const uint64_t whole = size / options_.max_piece_bytes, rest = size % options_.max_piece_bytes;
    uint64_t bytes = size + whole * front_of_piece(tensor, options_.max_piece_bytes).size();
    if (rest > 0) bytes += front_of_piece(tensor, rest).size();
    return bytes;
  }

  // A value up to the content: tag, dimensions and type of the whole, length of the piece.
  std::string front_of_piece(const TensorSpec& tensor, uint64_t piece) const {
    std::string head;
    for (const int64_t size : tensor.shape) {
      head += '\x08' + varint(static_cast<uint64_t>(size));
    }
    head += text_field(2, type_name(tensor.dtype)) + field(3, piece);
    const std::string tag = text_field(1, tensor.name);
    const std::string inner = field(2, head.size() + piece);
    return field(1, tag.size() + inner.size() + head.size() + piece) + tag + inner + head;
  }

  void put(std::string_view bytes) {
    file_.write(bytes);
    if (!options_.crc) return;
    crc_ = crc32(crc_, std::as_bytes(std::span(bytes)));
  }

  std::string path_;
  MindsporeOptions options_;
  FileRole role_;
  OutputFile file_;
  std::set<std::string> names_;
  uint32_t crc_ = 0;
};

}  // namespace

void write_mindspore(const fs::path& path, const std::vector<TensorSpec>& tensors,
                     const TensorProducer& produce, MindsporeOptions options, FileRole role,
                     FileGrowth growth) {
  MindsporeWriter writer(path, options, role, std::move(growth));
  for (const TensorSpec& tensor : tensors) writer.write(tensor, produce);
  writer.commit();
}

}  // namespace qianli::formats
