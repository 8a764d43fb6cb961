// Numbers as they lie in files: little-endian, at any alignment.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace qianli::formats {

static_assert(std::endian::native == std::endian::little, "file formats are read in place");

template <class T>
T load(const std::byte* place) {
  T value;
  std::memcpy(&value, place, sizeof value);
  return value;
}

// A read-only array inside mapped bytes, whose elements need not be aligned: a view, never a copy.
template <class T>
class PackedArray {
 public:
  PackedArray() = default;
  PackedArray(const std::byte* data, size_t size) : data_(data), size_(size) {}

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T operator[](size_t i) const { return load<T>(data_ + i * sizeof(T)); }
  std::span<const std::byte> bytes() const { return {data_, size_ * sizeof(T)}; }
  std::vector<T> to_vector() const {
    std::vector<T> copy(size_);
    if (size_ > 0) std::memcpy(copy.data(), data_, size_ * sizeof(T));
    return copy;
  }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace qianli::formats
