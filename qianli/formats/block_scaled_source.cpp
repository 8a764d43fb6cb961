#include "qianli/formats/block_scaled_source.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "qianli/formats/number_formats.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr std::string_view kScaleInverse = "_scale_inv";
constexpr std::string_view kBlocks = "_blocks", kScales = "_scales";
constexpr std::string_view kWeight = ".weight", kScale = ".scale";
constexpr int64_t kMxRow = 32, kMxBytes = 16;

bool is_one_byte_float(Dtype dtype) { return is_floating_point(dtype) && bit_size(dtype) == 8; }

// X.scale of X.weight.
const TensorSpec* scale_beside(const TensorSource& source, const TensorSpec& tensor) {
  if (!tensor.name.ends_with(kWeight)) return nullptr;
  const std::string stem = tensor.name.substr(0, tensor.name.size() - kWeight.size());
  return source.find(stem + std::string(kScale));
}

// The scales of a quantised tensor, or null where it is none.
const TensorSpec* scales_of(const TensorSource& source, const TensorSpec& tensor) {
  if (is_one_byte_float(tensor.dtype)) {
    const TensorSpec* inverse = source.find(tensor.name + std::string(kScaleInverse));
    return inverse ? inverse : scale_beside(source, tensor);
  }
  if (tensor.dtype == Dtype::kI8) return scale_beside(source, tensor);
  if (tensor.dtype == Dtype::kU8 && tensor.name.ends_with(kBlocks)) {
    const std::string stem = tensor.name.substr(0, tensor.name.size() - kBlocks.size());
    return source.find(stem + std::string(kScales));
  }
  return nullptr;
}

class BlockScaledSource : public TensorSource {
 public:
  BlockScaledSource(std::unique_ptr<TensorSource> inner, BlockScaling scaling)
      : TensorSource(inner->source()), inner_(std::move(inner)), scaling_(scaling) {
    if (scaling.block_rows < 1 || scaling.block_columns < 1) {
      reject(FileRole::kCheckpoint, source(), "expected weight_block_size of at least 1");
    }
    std::unordered_map<const TensorSpec*, bool> used;
    for (const TensorSpec& tensor : inner_->tensors()) used[scales_of(*inner_, tensor)] = true;
    for (const TensorSpec& tensor : inner_->tensors()) {
      if (used.contains(&tensor)) continue;
      Stored stored{.values = &tensor, .scales = scales_of(*inner_, tensor)};
      add(stored.scales ? dequantized(stored) : tensor);
      stored_.push_back(stored);
    }
  }

 private:
  struct Stored {
    const TensorSpec* values;
    const TensorSpec* scales;
    bool is_mxfp4() const { return values->dtype == Dtype::kU8; }
    bool is_mxfp4_rows() const { return values->dtype == Dtype::kI8; }
  };

  [[noreturn]] void refuse(const Stored& stored, const std::string& reason) const {
    reject(FileRole::kCheckpoint, source(),
           fmt::format("tensor {}: {}", shown_name(stored.values->name), reason));
  }

  void expect_scales(const Stored& stored, std::vector<int64_t> shape) const {
    const Dtype dtype = stored.scales->dtype;
    const bool numbers = stored.is_mxfp4() ? dtype == Dtype::kU8 : is_floating_point(dtype);
    if (stored.scales->shape == shape && numbers) return;
    refuse(stored,
           fmt::format("expected scales {} of shape {}, got {} of {}",
                       stored.is_mxfp4() ? "U8" : "F32, F16, BF16 or F8_E8M0", shape_text(shape),
                       dtype_name(stored.scales->dtype), shape_text(stored.scales->shape)));
  }

  TensorSpec dequantized(const Stored& stored) const {
    const std::vector<int64_t>& shape = stored.values->shape;
    if (stored.is_mxfp4()) {
      if (shape.size() != 4 || shape[3] != kMxBytes || shape[2] > INT64_MAX / kMxRow) {
        refuse(stored, fmt::format("expected MXFP4 blocks of shape [experts, out, in / 32, 16], "
                                   "got {}",
                                   shape_text(shape)));
      }
      expect_scales(stored, {shape[0], shape[1], shape[2]});
      const std::string& name = stored.values->name;
      return {name.substr(0, name.size() - kBlocks.size()),
              Dtype::kF32,
              {shape[0], shape[2] * kMxRow, shape[1]}};
    }
    if (shape.size() != 2) refuse(stored, "expected a matrix, got " + shape_text(shape));
    if (stored.is_mxfp4_rows()) {
      if (shape[1] % kMxBytes != 0 || shape[1] > INT64_MAX / 2) {
        refuse(stored, fmt::format("expected rows of MXFP4 blocks of {} bytes, got {}", kMxBytes,
                                   shape_text(shape)));
      }
      expect_scales(stored, {shape[0], shape[1] / kMxBytes});
      return {stored.values->name, Dtype::kF32, {shape[0], 2 * shape[1]}};
    }
    const auto blocks = [](int64_t size, int64_t block) {
      return size / block + (size % block != 0);
    };
    expect_scales(
        stored, {blocks(shape[0], scaling_.block_rows), blocks(shape[1], scaling_.block_columns)});
    return {stored.values->name, Dtype::kF32, shape};
  }

  std::string describe(size_t index) const override {
    const Stored& stored = stored_[index];
    if (!stored.scales) return inner_->stored_as(*stored.values);
    if (stored.is_mxfp4() || stored.is_mxfp4_rows()) return "MXFP4";
    return fmt::format("{} in blocks of {} x {}", dtype_name(stored.values->dtype),
                       scaling_.block_rows, scaling_.block_columns);
  }

  Dtype natural(size_t index) const override {
    const Stored& stored = stored_[index];
    return stored.scales ? Dtype::kBF16 : inner_->natural_dtype(*stored.values);
  }

  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    if (stored_[index].scales) return std::nullopt;
    return inner_->view(*stored_[index].values);
  }

  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const Stored& stored = stored_[index];
    if (!stored.scales) {
      inner_->read_rows(*stored.values, first, count, out);
    } else if (stored.is_mxfp4()) {
      for (int64_t i = 0; i < count; ++i) {
        const size_t bytes = out.size() / static_cast<size_t>(count);
        copy_expert(stored, first + i, out.subspan(static_cast<size_t>(i) * bytes, bytes));
      }
    } else if (stored.is_mxfp4_rows()) {
      copy_packed_rows(stored, first, count, out);
    } else {
      copy_scaled_rows(stored, first, count, out);
    }
  }

  // Rows of codes and their scales, [count, in / 2] -> [count, in].
  void copy_packed_rows(const Stored& stored, int64_t first, int64_t count,
                        std::span<std::byte> out) const {
    const std::vector<std::byte> codes = rows_of(*stored.values, first, count);
    std::vector<float> scales(codes.size() / kMxBytes), numbers(2 * codes.size());
    to_float32(stored.scales->dtype, rows_of(*stored.scales, first, count), scales);
    mxfp4_to_float32(codes, scales, numbers);
    if (!out.empty()) std::memcpy(out.data(), numbers.data(), out.size());
  }

  std::vector<std::byte> rows_of(const TensorSpec& tensor, int64_t first, int64_t count) const {
    std::vector<std::byte> rows(row_bytes(tensor) * static_cast<uint64_t>(count));
    inner_->read_rows(tensor, first, count, rows);
    return rows;
  }

  void copy_scaled_rows(const Stored& stored, int64_t first, int64_t count,
                        std::span<std::byte> out) const {
    const auto columns = static_cast<size_t>(stored.values->shape[1]);
    const auto block = static_cast<size_t>(std::min<int64_t>(scaling_.block_columns, INT32_MAX));
    std::vector<std::byte> codes(columns);
    std::vector<float> row(columns), scales(static_cast<size_t>(stored.scales->shape[1]));
    int64_t scale_row = -1;
    for (int64_t i = 0; i < count; ++i) {
      if (scale_row != (first + i) / scaling_.block_rows) {
        scale_row = (first + i) / scaling_.block_rows;
        to_float32(stored.scales->dtype, rows_of(*stored.scales, scale_row, 1), scales);
      }
      inner_->read_rows(*stored.values, first + i, 1, codes);
      to_float32(stored.values->dtype, codes, row);
      for (size_t b = 0, begin = 0; begin < columns; ++b, begin += block) {
        const float scale = scales[b];
        const size_t end = std::min(columns, begin + block);
        for (size_t c = begin; c < end; ++c) row[c] *= scale;
      }
      std::memcpy(out.data() + static_cast<size_t>(i) * columns * sizeof(float), row.data(),
                  columns * sizeof(float));
    }
  }

  // One expert, [out, in / 32, 16] -> [in, out].
  void copy_expert(const Stored& stored, int64_t expert, std::span<std::byte> out) const {
    const auto num_out = static_cast<size_t>(stored.values->shape[1]);
    const auto num_in = static_cast<size_t>(stored.values->shape[2] * kMxRow);
    const std::vector<std::byte> codes = rows_of(*stored.values, expert, 1);
    const std::vector<std::byte> scales = rows_of(*stored.scales, expert, 1);
    // Sixteen rows at a time: their columns are then whole cache lines of the result.
    constexpr size_t kRows = 16;
    std::vector<float> rows(kRows * num_in), column(kRows);
    for (size_t first = 0; first < num_out; first += kRows) {
      const size_t count = std::min(kRows, num_out - first);
      mxfp4_to_float32(std::span(codes).subspan(first * num_in / 2, count * num_in / 2),
                       std::span(scales).subspan(first * num_in / kMxRow, count * num_in / kMxRow),
                       std::span(rows).first(count * num_in));
      for (size_t c = 0; c < num_in; ++c) {
        for (size_t r = 0; r < count; ++r) column[r] = rows[r * num_in + c];
        std::memcpy(out.data() + (c * num_out + first) * sizeof(float), column.data(),
                    count * sizeof(float));
      }
    }
  }

  std::unique_ptr<TensorSource> inner_;
  BlockScaling scaling_;
  std::vector<Stored> stored_;
};

}  // namespace

bool has_block_scaled_tensors(const TensorSource& source) {
  return std::ranges::any_of(source.tensors(), [&](const TensorSpec& tensor) {
    return scales_of(source, tensor) != nullptr;
  });
}

std::unique_ptr<TensorSource> dequantize_blocks(std::unique_ptr<TensorSource> source,
                                                BlockScaling scaling) {
  return std::make_unique<BlockScaledSource>(std::move(source), scaling);
}

}  // namespace qianli::formats
