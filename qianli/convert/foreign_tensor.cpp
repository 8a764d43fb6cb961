#include "qianli/convert/foreign_tensor.h"

#include <fmt/core.h>

#include <algorithm>
#include <tuple>

#include "qianli/base/error.h"

namespace qianli::convert {
namespace {

// A rectangle of a parameter and the tensor that holds it.
struct Patch {
  int64_t first_row, end_row, first_column, end_column;
  const std::string* name;
};

[[noreturn]] void fail(const model::ParameterEntry& entry, const std::string& what, int64_t row,
                       const std::string& problem) {
  throw CheckpointError("convert", fmt::format("{}: expected row {} of {} exactly once, {}", what,
                                               row, entry.name, problem));
}

// The patches of one parameter must tile its matrix. Their row ranges either coincide or are apart,
// because layouts cut rows or columns, never one inside the other.
void check_tiles(const model::ParameterEntry& entry, std::vector<Patch>& patches,
                 const std::string& what) {
  std::ranges::sort(patches, [](const Patch& a, const Patch& b) {
    return std::tie(a.first_row, a.end_row, a.first_column) <
           std::tie(b.first_row, b.end_row, b.first_column);
  });
  int64_t row = 0;
  for (size_t i = 0; i < patches.size();) {
    const Patch& first = patches[i];
    if (first.first_row > row) fail(entry, what, row, "got it in no tensor");
    if (first.first_row < row) fail(entry, what, first.first_row, "got it again in " + *first.name);
    int64_t column = 0;
    for (; i < patches.size() && patches[i].first_row == first.first_row; ++i) {
      const Patch& patch = patches[i];
      if (patch.end_row != first.end_row)
        fail(entry, what, patch.first_row, "got rows that overlap");
      if (patch.first_column > column)
        fail(entry, what, row, fmt::format("got no column {}", column));
      if (patch.first_column < column) fail(entry, what, row, "got it again in " + *patch.name);
      column = patch.end_column;
    }
    if (column < matrix_columns(entry))
      fail(entry, what, row, fmt::format("got no column {}", column));
    row = first.end_row;
  }
  if (row < matrix_rows(entry)) fail(entry, what, row, "got it in no tensor");
}

}  // namespace

int64_t matrix_rows(const model::ParameterEntry& entry) {
  return entry.elements() / matrix_columns(entry);
}

int64_t matrix_columns(const model::ParameterEntry& entry) {
  if (!entry.hugging_face.empty()) return entry.hugging_face.front().own_columns();
  return entry.shape.size() < 2 ? 1 : entry.shape.back();
}

ForeignTensor rows_of(const Table& table, size_t parameter, int64_t first, int64_t rows) {
  const int64_t columns = matrix_columns(table[parameter]);
  return {.name = table[parameter].name,
          .shape = {rows, columns},
          .parts = {{.parameter = parameter,
                     .first_row = first,
                     .rows = rows,
                     .columns = columns,
                     .foreign_rows = rows,
                     .foreign_columns = columns}}};
}

std::vector<RowRange> row_ranges(const Table& table, int64_t elements) {
  std::vector<RowRange> ranges;
  for (size_t i = 0; i < table.size(); ++i) {
    const int64_t rows = matrix_rows(table[i]);
    const int64_t step = std::max<int64_t>(1, elements / matrix_columns(table[i]));
    for (int64_t first = 0; first < rows; first += step) {
      ranges.push_back({i, first, std::min(step, rows - first)});
    }
  }
  return ranges;
}

std::vector<ForeignTensor> own_tensors(const Table& table) {
  std::vector<ForeignTensor> tensors;
  for (size_t i = 0; i < table.size(); ++i) {
    tensors.push_back(rows_of(table, i, 0, matrix_rows(table[i])));
    tensors.back().shape = table[i].shape;
  }
  return tensors;
}

void check_cover(const Table& table, const std::vector<ForeignTensor>& tensors,
                 const std::string& what) {
  std::vector<std::vector<Patch>> patches(table.size());
  for (const ForeignTensor& tensor : tensors) {
    if (tensor.copy) continue;
    for (const Part& part : tensor.parts) {
      patches[part.parameter].push_back({part.first_row, part.first_row + part.rows,
                                         part.first_column, part.first_column + part.columns,
                                         &tensor.name});
    }
  }
  for (size_t i = 0; i < table.size(); ++i) check_tiles(table[i], patches[i], what);
}

}  // namespace qianli::convert
