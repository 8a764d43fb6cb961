// GGUF, the container of llama.cpp: "GGUF", version, counts, metadata, tensor infos, then the
// tensors, each at a multiple of general.alignment. Versions 2 and 3, little-endian.
// (github.com/ggml-org/ggml, docs/gguf.md)
#pragma once

#include <map>
#include <memory>
#include <variant>

#include "qianli/base/output_file.h"
#include "qianli/formats/ggml_blocks.h"
#include "qianli/formats/tensor_source.h"

namespace qianli::formats {

enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kText,
  kArray,
  kU64,
  kI64,
  kF64,
};

// Bytes of one number; 0 for texts and arrays.
uint64_t gguf_number_bytes(GgufType type);

// One value of the metadata. Numbers and texts of an array lie in the file until they are asked
// for.
struct GgufValue {
  struct Array {
    GgufType type = GgufType::kU8;
    uint64_t count = 0;
    std::span<const std::byte> bytes;
  };
  GgufType type = GgufType::kU8;
  // kU8 to kU64: uint64_t; kI8 to kI64: int64_t; kF32, kF64: double.
  std::variant<uint64_t, int64_t, double, bool, std::string_view, Array> value;
};

struct GgufTensor {
  TensorSpec spec;  // shape in row-major order: the reverse of the file; dtype as it is read
  GgmlType type = GgmlType::kF32;
  std::span<const std::byte> bytes;
};

// What stands in a file; all views point into it.
struct GgufContents {
  std::vector<GgufTensor> tensors;
  std::map<std::string, GgufValue, std::less<>> metadata;
};

// Reads the front of `file`, all bytes of a file. Throws the error of `role` naming source, key or
// tensor, and the reason for other versions and byte orders, counts, lengths and dimensions that do
// not fit into the file, unknown types, arrays of arrays, names used twice, tensors at offsets that
// are not aligned, overlap or leave the file.
GgufContents parse_gguf(std::span<const std::byte> file, const std::string& source, FileRole role);

class GgufFile {
 public:
  static std::shared_ptr<const GgufFile> open(const fs::path& path,
                                              FileRole role = FileRole::kCheckpoint);

  const std::vector<GgufTensor>& tensors() const { return contents_.tensors; }
  const std::map<std::string, GgufValue, std::less<>>& metadata() const {
    return contents_.metadata;
  }
  // Values of the metadata. Nothing where the key is absent; an error naming the key where the
  // value is of another kind or does not fit.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;  // an integer, too
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  std::optional<std::vector<int64_t>> integers(std::string_view key) const;
  std::optional<std::vector<double>> numbers(std::string_view key) const;
  std::optional<std::vector<std::string>> texts(std::string_view key) const;

  std::string source() const { return map_->path().string(); }

 private:
  GgufFile() = default;
  const GgufValue* find_value(std::string_view key) const;
  const GgufValue::Array* find_array(std::string_view key) const;
  [[noreturn]] void refuse(std::string_view key, const std::string& reason) const;

  std::shared_ptr<const MappedFile> map_;
  FileRole role_ = FileRole::kCheckpoint;
  GgufContents contents_;
};

// The tensors under the file's own names. Plain types arrive as they are, blocks as F32; reading a
// tensor of a kind that is not decoded is an error that names the kind. A file that is the first of
// a split model (split.count above 1, NAME-00001-of-0000N.gguf) brings the others along.
std::unique_ptr<TensorSource> open_gguf_source(const fs::path& path);

// What GgufWriter is told of a tensor: shape in row-major order, and the type in the file: F32,
// F16, BF16, F64, I8 to I64, or Q8_0, whose last dimension is a multiple of 32.
struct GgufTensorToWrite {
  std::string name;
  std::vector<int64_t> shape;
  GgmlType type = GgmlType::kF32;
};

// Metadata to write. Integers are written as U32 where they fit, else as U64 or I64; floats as F32.
using GgufMetadataValue = std::variant<int64_t, double, bool, std::string, std::vector<std::string>,
                                       std::vector<int32_t>, std::vector<float>>;
using GgufMetadata = std::vector<std::pair<std::string, GgufMetadataValue>>;

// Writes version 3. `produce` is called once per tensor, in order, with its spec in the type that
// the caller has it in, and hands over its bytes in that type: F32 for Q8_0, else the same type.
// Nothing but one piece is in memory.
void write_gguf(const fs::path& path, const GgufMetadata& metadata,
                const std::vector<GgufTensorToWrite>& tensors, const TensorProducer& produce,
                FileRole role = FileRole::kCheckpoint, FileGrowth growth = {});

}  // namespace qianli::formats
