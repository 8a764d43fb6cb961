#include "qianli/convert/assemble.h"

#include <fmt/core.h>

#include <algorithm>
#include <unordered_set>

#include "qianli/base/error.h"
#include "qianli/convert/strided_copy.h"
#include "qianli/formats/number_formats.h"
#include "qianli/formats/reject.h"

namespace qianli::convert {
namespace {

constexpr int64_t kElementsAtOnce = int64_t{1} << 20;  // of a change of element type
constexpr size_t kRecentTensors = 4;

size_t element_bytes(formats::Dtype dtype) {
  return static_cast<size_t>(formats::bit_size(dtype)) / 8;
}

// The rows [first, first + count) of a part that follow one another in the foreign tensor too.
struct Run {
  int64_t foreign_row;
  int64_t count;
};

// From row `row` of the parameter on, at most `limit` of them.
Run run_from(const Part& part, int64_t row, int64_t limit) {
  const int64_t r = row - part.first_row;
  int64_t count = std::min(limit, part.rows - r);
  if (part.block > 0) count = std::min(count, part.block - r % part.block);
  return {part.foreign_row_of(r), count};
}

// Where element (row, column) of the parameter lies, and how far its neighbours are.
Strided place(const Part& part, int64_t foreign_row, int64_t column) {
  const int64_t foreign_column = part.foreign_column + column - part.first_column;
  if (part.transposed) {
    return {part.offset + foreign_column * part.foreign_columns + foreign_row, 1,
            part.foreign_columns};
  }
  return {part.offset + foreign_row * part.foreign_columns + foreign_column, part.foreign_columns,
          1};
}

}  // namespace

ParameterReader::ParameterReader(const Table& table, std::vector<ForeignTensor> tensors,
                                 std::vector<std::shared_ptr<const formats::TensorSource>> files,
                                 std::string what,
                                 const std::function<bool(const std::string&)>& ignored)
    : table_(table),
      tensors_(std::move(tensors)),
      files_(std::move(files)),
      pieces_(table.size()),
      what_(std::move(what)) {
  check_cover(table_, tensors_, what_);
  std::vector<std::unordered_set<std::string>> named(files_.size());
  for (size_t t = 0; t < tensors_.size(); ++t) {
    const ForeignTensor& tensor = tensors_[t];
    const formats::TensorSource& file = *files_.at(tensor.file);
    const formats::TensorSpec& found = file.at(tensor.name);
    check_stored(tensor, found);
    named[tensor.file].insert(tensor.name);
    specs_.push_back(&found);
    if (tensor.copy) continue;
    for (const Part& part : tensor.parts) pieces_[part.parameter].push_back({part, t});
  }
  for (auto& pieces : pieces_) {
    std::ranges::sort(pieces, {}, [](const Piece& piece) { return piece.part.first_row; });
  }
  for (size_t f = 0; f < files_.size(); ++f) {
    for (const formats::TensorSpec& spec : files_[f]->tensors()) {
      if (named[f].contains(spec.name) || (ignored && ignored(spec.name))) continue;
      unused_.push_back(files_[f]->source() + ": " + formats::shown_name(spec.name));
    }
  }
}

void ParameterReader::check_stored(const ForeignTensor& tensor,
                                   const formats::TensorSpec& found) const {
  const std::string where = files_[tensor.file]->source();
  if (found.shape != tensor.shape) {
    throw CheckpointError(
        "convert",
        fmt::format("{}: expected {} of shape {}, got {}", where, formats::shown_name(tensor.name),
                    formats::shape_text(tensor.shape), formats::shape_text(found.shape)),
        "is config.json of this model?");
  }
  if (!formats::is_floating_point(found.dtype) || formats::bit_size(found.dtype) < 16) {
    throw CheckpointError(
        "convert",
        fmt::format("{}: expected {} in F64, F32, F16 or BF16, got {}", where,
                    formats::shown_name(tensor.name), formats::dtype_name(found.dtype)),
        "quantised weights need their scales beside them");
  }
}

bool ParameterReader::is_quantized(size_t index) const {
  const Piece& piece = pieces_[index].front();
  const formats::TensorSpec& spec = *specs_[piece.tensor];
  return files_[tensors_[piece.tensor].file]->stored_as(spec) != formats::dtype_name(spec.dtype);
}

formats::Dtype ParameterReader::dtype(size_t index) const {
  return specs_[pieces_[index].front().tensor]->dtype;
}

void ParameterReader::assemble(const ForeignTensor& tensor, formats::Dtype dtype,
                               std::span<std::byte> out) const {
  for (const Part& part : tensor.parts) {
    const auto& pieces = pieces_[part.parameter];
    // The first piece that may reach into the part's rows; pieces of the same rows lie side by
    // side.
    auto piece = std::ranges::lower_bound(pieces, part.first_row, {}, [](const Piece& p) {
      return p.part.first_row + p.part.rows - 1;
    });
    for (; piece != pieces.end() && piece->part.first_row < part.first_row + part.rows; ++piece) {
      copy(part, *piece, dtype, out);
    }
  }
}

std::optional<std::span<const std::byte>> ParameterReader::in_place(const ForeignTensor& tensor,
                                                                    formats::Dtype dtype) const {
  if (tensor.parts.empty()) return std::nullopt;
  const auto& pieces = pieces_[tensor.parts.front().parameter];
  const size_t candidate = pieces.front().tensor;
  const auto same = [](const Part& a, const Part& b) { return a == b; };
  if (specs_[candidate]->dtype != dtype || tensors_[candidate].shape != tensor.shape ||
      !std::ranges::equal(tensors_[candidate].parts, tensor.parts, same)) {
    return std::nullopt;
  }
  return files_[tensors_[candidate].file]->view(*specs_[candidate]);
}

ParameterReader::Bytes ParameterReader::bytes_of(size_t tensor) const {
  const formats::TensorSource& file = *files_[tensors_[tensor].file];
  if (const auto view = file.view(*specs_[tensor])) return {*view, nullptr};
  const std::lock_guard lock(mutex_);
  for (const auto& [index, bytes] : recent_) {
    if (index == tensor) return {*bytes, bytes};
  }
  auto bytes = std::make_shared<std::vector<std::byte>>(specs_[tensor]->num_bytes());
  file.read(*specs_[tensor], *bytes);
  if (recent_.size() == kRecentTensors) recent_.erase(recent_.begin());
  recent_.emplace_back(tensor, bytes);
  return {*bytes, bytes};
}

void ParameterReader::copy(const Part& to, const Piece& from, formats::Dtype dtype,
                           std::span<std::byte> out) const {
  const int64_t end_row = std::min(to.first_row + to.rows, from.part.first_row + from.part.rows);
  const int64_t column = std::max(to.first_column, from.part.first_column);
  const int64_t columns =
      std::min(to.first_column + to.columns, from.part.first_column + from.part.columns) - column;
  if (columns <= 0) return;
  const Bytes source = bytes_of(from.tensor);
  const formats::Dtype source_dtype = specs_[from.tensor]->dtype;
  const size_t width = element_bytes(source_dtype);
  const bool same = source_dtype == dtype;
  std::vector<std::byte> gathered, converted;
  for (int64_t row = std::max(to.first_row, from.part.first_row); row < end_row;) {
    int64_t limit = end_row - row;
    if (!same) limit = std::min(limit, std::max<int64_t>(1, kElementsAtOnce / columns));
    const Run target = run_from(to, row, limit);
    const Run origin = run_from(from.part, row, target.count);
    const int64_t rows = origin.count;
    const Strided there = place(to, target.foreign_row, column),
                  here = place(from.part, origin.foreign_row, column);
    if (same) {
      strided_copy(rows, columns, width, source.data.data(), here, out.data(), there);
    } else {
      const Strided packed{0, columns, 1};
      const auto count = static_cast<size_t>(rows * columns);
      gathered.resize(count * width);
      converted.resize(count * element_bytes(dtype));
      strided_copy(rows, columns, width, source.data.data(), here, gathered.data(), packed);
      formats::convert_numbers(source_dtype, gathered, dtype, converted);
      strided_copy(rows, columns, element_bytes(dtype), converted.data(), packed, out.data(),
                   there);
    }
    row += rows;
  }
}

}  // namespace qianli::convert
