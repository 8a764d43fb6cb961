// NumPy's .npy files (format versions 1 to 3) holding whole numbers in one or two dimensions: the
// sample indexes that Megatron caches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "qianli/base/file.h"
#include "qianli/formats/little_endian.h"

namespace qianli::formats {

struct NpyArray {
  bool is_signed = true;
  int element_bytes = 4;       // 1, 2, 4 or 8
  std::vector<int64_t> shape;  // one or two dimensions, row-major
  std::span<const std::byte> bytes;
  std::string source;
  FileRole role = FileRole::kData;

  // "<i4".
  std::string descr() const;
  int64_t num_elements() const;
  // All elements, rows after rows; throws where the stored type is not T.
  template <class T>
  PackedArray<T> values() const {
    static_assert(std::is_integral_v<T>);
    check_type(std::is_signed_v<T>, sizeof(T));
    return {bytes.data(), bytes.size() / sizeof(T)};
  }

 private:
  void check_type(bool wants_signed, int wanted_bytes) const;
};

// `file` is a whole file, which the array points into. Throws the error of `role` naming `source`
// for damaged headers, other types or dimensions, and sizes that do not match the shape.
NpyArray parse_npy(std::span<const std::byte> file, const std::string& source, FileRole role);

// A mapped .npy file.
class NpyFile {
 public:
  static NpyFile open(const fs::path& path, FileRole role = FileRole::kData);
  const NpyArray& array() const { return array_; }

 private:
  NpyFile(std::shared_ptr<const MappedFile> map, NpyArray array)
      : map_(std::move(map)), array_(std::move(array)) {}
  std::shared_ptr<const MappedFile> map_;
  NpyArray array_;
};

// Writes `values` as version 1.0, byte for byte as numpy.save does: in one dimension, or in rows of
// `columns` where that is not 0. T: any integer of 1 to 8 bytes.
void write_npy_bytes(const fs::path& path, std::span<const std::byte> values, bool is_signed,
                     int element_bytes, int64_t columns, FileRole role);
template <class T>
void write_npy(const fs::path& path, std::span<const T> values, int64_t columns = 0,
               FileRole role = FileRole::kData) {
  static_assert(std::is_integral_v<T>);
  write_npy_bytes(path, std::as_bytes(values), std::is_signed_v<T>, sizeof(T), columns, role);
}

}  // namespace qianli::formats
