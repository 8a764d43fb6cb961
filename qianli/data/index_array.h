// A read-only array of integers, in memory or mapped from a NumPy .npy file. Orders of large
// corpora are gigabytes, so cached ones are mapped rather than read.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "qianli/base/file.h"

namespace qianli::data {

class IndexArray {
 public:
  enum class Type : uint8_t { kInt16, kInt32, kUint32, kInt64 };

  IndexArray() = default;
  // Takes the values; `columns` > 1 makes a matrix of values.size() / columns rows, row-major.
  template <class T>
  static IndexArray own(std::vector<T> values, int64_t columns = 1);

  // Maps a .npy file of one or two dimensions and type i2, i4, u4 or i8; DataError for any other.
  static IndexArray map_npy(const fs::path& path);
  // Written atomically, byte for byte as numpy.save does.
  void save_npy(const fs::path& path) const;

  int64_t operator[](int64_t i) const {
    switch (type_) {
      case Type::kInt16:
        return load<int16_t>(i);
      case Type::kInt32:
        return load<int32_t>(i);
      case Type::kUint32:
        return load<uint32_t>(i);
      case Type::kInt64:
        break;
    }
    return load<int64_t>(i);
  }
  int64_t size() const { return rows_ * columns_; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  Type type() const { return type_; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  template <class T>
  int64_t load(int64_t i) const {
    T value;
    std::memcpy(&value, bytes_.data() + static_cast<size_t>(i) * sizeof(T), sizeof(T));
    return static_cast<int64_t>(value);
  }
  template <class T>
  static constexpr Type type_of() {
    if constexpr (std::is_same_v<T, int16_t>) return Type::kInt16;
    if constexpr (std::is_same_v<T, int32_t>) return Type::kInt32;
    if constexpr (std::is_same_v<T, uint32_t>) return Type::kUint32;
    return Type::kInt64;
  }

  std::shared_ptr<const void> owner_;
  std::span<const std::byte> bytes_;
  int64_t rows_ = 0;
  int64_t columns_ = 1;
  Type type_ = Type::kInt64;
};

template <class T>
IndexArray IndexArray::own(std::vector<T> values, int64_t columns) {
  static_assert(std::is_same_v<T, int16_t> || std::is_same_v<T, int32_t> ||
                std::is_same_v<T, uint32_t> || std::is_same_v<T, int64_t>);
  IndexArray array;
  auto owner = std::make_shared<const std::vector<T>>(std::move(values));
  array.bytes_ = std::as_bytes(std::span<const T>(*owner));
  array.rows_ = static_cast<int64_t>(owner->size()) / columns;
  array.columns_ = columns;
  array.type_ = type_of<T>();
  array.owner_ = std::move(owner);
  return array;
}

}  // namespace qianli::data
