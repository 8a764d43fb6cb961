#include "qianli/convert/assemble.h"

#include <fmt/core.h>

#include <algorithm>
#include <unordered_set>

#include "qianli/base/error.h"
#include "qianli/convert/convert_block.h"
#include "qianli/formats/number_formats.h"
#include "qianli/formats/reject.h"

namespace qianli::convert {
namespace {

constexpr int64_t kCompared = int64_t{4} << 20;  // bytes of a copy looked at a time

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

// The rows [begin, end) of the part's foreign matrix as it stands in memory, of those that lie in
// the tensor's elements [first, first + count).
struct MemoryRows {
  int64_t begin, end;
};

MemoryRows memory_rows(const Part& part, int64_t first, int64_t count) {
  const int64_t columns = part.foreign_columns, last = part.offset + part.foreign_rows * columns;
  const int64_t begin = std::clamp(first, part.offset, last) - part.offset;
  const int64_t end = std::clamp(first + count, part.offset, last) - part.offset;
  return {begin / columns, end / columns};
}

// The part as far as it lies in those rows. Rows that are woven are only cut to whole groups; whose
// rows to leave out is seen at each run.
Part clipped(Part part, MemoryRows rows) {
  const auto clip = [&](int64_t& own, int64_t& count, int64_t& foreign) {
    const int64_t begin = std::max(rows.begin, foreign);
    const int64_t end = std::min(rows.end, foreign + count);
    own += begin - foreign;
    foreign = begin;
    count = std::max<int64_t>(0, end - begin);
  };
  if (part.transposed) {
    clip(part.first_column, part.columns, part.foreign_column);
  } else if (part.block == 0) {
    clip(part.first_row, part.rows, part.foreign_row);
  } else {
    const int64_t groups = part.rows / part.block;
    const int64_t before =
        std::clamp<int64_t>((rows.begin - part.foreign_row) / part.stride, 0, groups);
    const int64_t after = std::clamp<int64_t>(
        (rows.end - part.foreign_row + part.stride - 1) / part.stride, before, groups);
    part.first_row += before * part.block;
    part.foreign_row += before * part.stride;
    part.rows = (after - before) * part.block;
  }
  return part;
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
      if (named[f].contains(spec.name)) continue;
      auto& others = ignored && ignored(spec.name) ? left_out_ : unused_;
      others.push_back(files_[f]->source() + ": " + formats::shown_name(spec.name));
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
        "check that config.json is of this model");
  }
  const bool whole = found.dtype == formats::Dtype::kI64 || found.dtype == formats::Dtype::kI32;
  if (whole && !tensor.parts.empty() && table_[tensor.parts.front().parameter].integral) return;
  if (!formats::is_floating_point(found.dtype) || formats::bit_size(found.dtype) < 16) {
    throw CheckpointError(
        "convert",
        fmt::format("{}: expected {} in F64, F32, F16 or BF16, got {}", where,
                    formats::shown_name(tensor.name), formats::dtype_name(found.dtype)),
        "quantised weights need their scales beside them");
  }
}

formats::Dtype ParameterReader::natural_dtype(size_t index) const {
  const size_t tensor = pieces_[index].front().tensor;
  return file_of(tensor).natural_dtype(*specs_[tensor]);
}

formats::Dtype ParameterReader::dtype(size_t index) const {
  return specs_[pieces_[index].front().tensor]->dtype;
}

void ParameterReader::assemble(const ForeignTensor& tensor, formats::Dtype dtype, int64_t first,
                               std::span<std::byte> out) const {
  const auto count = static_cast<int64_t>(out.size() / element_bytes(dtype));
  for (const Part& whole : tensor.parts) {
    const Part part = clipped(whole, memory_rows(whole, first, count));
    if (part.rows == 0 || part.columns == 0) continue;
    const auto& pieces = pieces_[part.parameter];
    // The first piece that may reach into the part's rows; pieces of the same rows lie side by
    // side.
    auto piece = std::ranges::lower_bound(pieces, part.first_row, {}, [](const Piece& p) {
      return p.part.first_row + p.part.rows - 1;
    });
    for (; piece != pieces.end() && piece->part.first_row < part.first_row + part.rows; ++piece) {
      copy(part, *piece, first, dtype, out);
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

void ParameterReader::copy(const Part& to, const Piece& from, int64_t first, formats::Dtype dtype,
                           std::span<std::byte> out) const {
  const int64_t end_row = std::min(to.first_row + to.rows, from.part.first_row + from.part.rows);
  const auto count = static_cast<int64_t>(out.size() / element_bytes(dtype));
  const MemoryRows window = memory_rows(to, first, count);
  for (int64_t row = std::max(to.first_row, from.part.first_row); row < end_row;) {
    Run target = run_from(to, row, end_row - row);
    if (to.block > 0 && !to.transposed) {  // rows of a group that lie outside
      const int64_t before = std::max<int64_t>(0, window.begin - target.foreign_row);
      const int64_t inside = std::min(window.end - target.foreign_row, target.count) - before;
      if (inside <= 0) {
        row += target.count;
        continue;
      }
      row += before;
      target = run_from(to, row, inside);
    }
    const int64_t rows = run_from(from.part, row, target.count).count;
    copy_rows(to, from, row, rows, first, dtype, out);
    row += rows;
  }
}

// Rows that follow one another on both sides.
void ParameterReader::copy_rows(const Part& to, const Piece& from, int64_t row, int64_t rows,
                                int64_t first, formats::Dtype dtype,
                                std::span<std::byte> out) const {
  const int64_t column = std::max(to.first_column, from.part.first_column);
  const int64_t columns =
      std::min(to.first_column + to.columns, from.part.first_column + from.part.columns) - column;
  if (columns <= 0) return;
  Strided there = place(to, to.foreign_row_of(row - to.first_row), column),
          here = place(from.part, from.part.foreign_row_of(row - from.part.first_row), column);
  const int64_t last = here.first + (rows - 1) * here.row_step + (columns - 1) * here.column_step;
  const formats::TensorSpec& spec = *specs_[from.tensor];
  const StoredElements source = recent_.get(file_of(from.tensor), spec, here.first, last + 1);
  here.first -= source.first;
  there.first -= first;
  if (spec.dtype == dtype) {
    return strided_copy(rows, columns, element_bytes(dtype), source.bytes.data(), here, out.data(),
                        there);
  }
  convert_block(rows, columns, spec.dtype, source.bytes.data(), here, dtype, out.data(), there);
}

bool ParameterReader::is_faithful(size_t copy) const {
  const formats::TensorSpec& spec = *specs_[copy];
  const auto width = static_cast<int64_t>(element_bytes(spec.dtype));
  const int64_t row = row_elements(tensors_[copy]), all = spec.num_elements();
  const int64_t step = std::max<int64_t>(1, kCompared / (row * width)) * row;
  std::vector<std::byte> original;
  for (int64_t first = 0; first < all; first += step) {
    const int64_t end = std::min(first + step, all);
    const StoredElements stored = recent_.get(file_of(copy), spec, first, end);
    const auto bytes = stored.bytes.subspan(static_cast<size_t>((first - stored.first) * width),
                                            static_cast<size_t>((end - first) * width));
    original.assign(bytes.begin(), bytes.end());  // what lies outside all parts counts as right
    assemble(tensors_[copy], spec.dtype, first, original);
    if (!std::ranges::equal(original, bytes)) return false;
  }
  return true;
}

std::vector<std::string> ParameterReader::differing_copies() const {
  std::vector<std::string> names;
  for (size_t t = 0; t < tensors_.size(); ++t) {
    if (!tensors_[t].copy || is_faithful(t)) continue;
    names.push_back(file_of(t).source() + ": " + formats::shown_name(tensors_[t].name));
  }
  return names;
}

int64_t row_elements(const ForeignTensor& tensor) {
  if (!tensor.parts.empty()) {
    const int64_t columns = tensor.parts.front().foreign_columns;
    const auto has_such_rows = [&](const Part& part) {
      return part.foreign_columns == columns && part.offset % columns == 0;
    };
    if (std::ranges::all_of(tensor.parts, has_such_rows)) return columns;
  }
  int64_t all = 1;
  for (const int64_t size : tensor.shape) all *= size;
  return all;
}

}  // namespace qianli::convert
