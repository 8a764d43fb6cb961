#include "qianli/formats/tensor_source.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "qianli/formats/reject.h"

namespace qianli::formats {

const TensorSpec* TensorSource::find(std::string_view name) const {
  const auto place = places_.find(std::string(name));
  return place == places_.end() ? nullptr : &tensors_[place->second];
}

const TensorSpec& TensorSource::at(std::string_view name) const {
  if (const TensorSpec* tensor = find(name)) return *tensor;
  reject(FileRole::kCheckpoint, source_,
         fmt::format("expected a tensor {}, found none", shown_name(name)));
}

std::string TensorSource::stored_as(const TensorSpec& tensor) const {
  return describe(index_of(tensor));
}

Dtype TensorSource::natural_dtype(const TensorSpec& tensor) const {
  return natural(index_of(tensor));
}

void TensorSource::read_rows(const TensorSpec& tensor, int64_t first, int64_t count,
                             std::span<std::byte> out) const {
  const size_t index = index_of(tensor);
  const int64_t rows = num_rows(tensor);
  if (first < 0 || count < 0 || first > rows || count > rows - first) {
    throw std::logic_error(
        fmt::format("rows [{}, {} + {}) of {} rows of {}", first, first, count, rows, tensor.name));
  }
  const bool whole = count == rows;  // rows of sub-byte elements may be no whole bytes
  if (out.size() !=
      (whole ? tensor.num_bytes() : row_bytes(tensor) * static_cast<uint64_t>(count))) {
    throw std::logic_error(
        fmt::format("{} bytes for {} rows of {}", out.size(), count, tensor.name));
  }
  if (!out.empty()) copy_rows(index, first, count, out);
}

void TensorSource::read(const TensorSpec& tensor, std::span<std::byte> out) const {
  read_rows(tensor, 0, num_rows(tensor), out);
}

std::optional<std::span<const std::byte>> TensorSource::view(const TensorSpec& tensor) const {
  return bytes_in_place(index_of(tensor));
}

void TensorSource::add(TensorSpec tensor) {
  if (!byte_size(tensor.dtype, tensor.shape)) {
    reject(FileRole::kCheckpoint, source_,
           fmt::format("tensor {}: the size of its shape {} overflows or is no whole number of "
                       "bytes",
                       shown_name(tensor.name), shape_text(tensor.shape)));
  }
  if (!places_.emplace(tensor.name, tensors_.size()).second) {
    reject(FileRole::kCheckpoint, source_,
           fmt::format("two tensors named {}", shown_name(tensor.name)));
  }
  tensors_.push_back(std::move(tensor));
}

std::string TensorSource::describe(size_t index) const {
  return std::string(dtype_name(tensors_[index].dtype));
}

Dtype TensorSource::natural(size_t index) const { return tensors_[index].dtype; }

void TensorSource::copy_rows(size_t index, int64_t first, int64_t, std::span<std::byte> out) const {
  const std::span<const std::byte> bytes = bytes_in_place(index).value();
  const uint64_t begin = first == 0 ? 0 : row_bytes(tensors_[index]) * static_cast<uint64_t>(first);
  std::memcpy(out.data(), bytes.data() + begin, out.size());
}

std::optional<std::span<const std::byte>> TensorSource::bytes_in_place(size_t) const {
  return std::nullopt;
}

size_t TensorSource::index_of(const TensorSpec& tensor) const {
  if (tensors_.empty() || std::less<>{}(&tensor, tensors_.data()) ||
      std::less<>{}(&tensors_.back(), &tensor)) {
    throw std::logic_error(fmt::format("{} is not a tensor of {}", tensor.name, source_));
  }
  return static_cast<size_t>(&tensor - tensors_.data());
}

int64_t num_rows(const TensorSpec& tensor) { return tensor.shape.empty() ? 1 : tensor.shape[0]; }

uint64_t row_bytes(const TensorSpec& tensor) {
  const auto rows = static_cast<uint64_t>(num_rows(tensor));
  if (rows == 0) return 0;
  if (tensor.num_bytes() % rows != 0) {
    throw std::logic_error(fmt::format("rows of {} are no whole bytes", tensor.name));
  }
  return tensor.num_bytes() / rows;
}

void stream(const TensorSource& source, const TensorSpec& tensor, const ByteSink& sink,
            uint64_t piece_bytes) {
  if (tensor.num_bytes() == 0) return;
  if (const auto bytes = source.view(tensor)) return sink(*bytes);
  const int64_t rows = num_rows(tensor);
  const uint64_t row = row_bytes(tensor);
  const auto step =
      static_cast<int64_t>(std::clamp<uint64_t>(piece_bytes / row, 1, static_cast<uint64_t>(rows)));
  std::vector<std::byte> piece(row * static_cast<uint64_t>(step));
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    const std::span out(piece.data(), row * static_cast<uint64_t>(count));
    source.read_rows(tensor, first, count, out);
    sink(out);
  }
}

}  // namespace qianli::formats
