// A tensor of another ecosystem, told in terms of the model's parameters. One list of these
// describes a checkpoint for reading and for writing, so that every conversion goes straight from
// the source's tensors to the target's, through no third form.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qianli/model/parameter_table.h"

namespace qianli::convert {

// A block of a parameter within a foreign tensor. The parameter is seen as a matrix: [product of
// the leading axes, last axis], a vector [n, 1] (matrix_rows, matrix_columns below). The foreign
// tensor, from element `offset` on, is a matrix [foreign_rows, foreign_columns] as it stands in
// memory; `transposed` says that its rows are the parameter's columns.
//
// Row r of the block (0 <= r < rows) is the parameter's row first_row + r, and in the foreign
// matrix (after transposing) the row
//   foreign_row + r                                       block == 0
//   foreign_row + (r / block) * stride + r % block        rows that are woven into others
// Its columns [first_column, first_column + columns) are there from column foreign_column on.
struct Part {
  size_t parameter = 0;  // index into the parameter table
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_column = 0;
  int64_t columns = 0;
  int64_t offset = 0;
  int64_t foreign_rows = 0;
  int64_t foreign_columns = 0;
  bool transposed = false;
  int64_t foreign_row = 0;
  int64_t foreign_column = 0;
  int64_t block = 0;
  int64_t stride = 0;

  bool operator==(const Part&) const = default;
  int64_t foreign_row_of(int64_t r) const {
    return foreign_row + (block == 0 ? r : r / block * stride + r % block);
  }
};

struct ForeignTensor {
  std::string name;
  std::vector<int64_t> shape;
  size_t file = 0;          // which of the checkpoint's files or ranks it lies in
  std::vector<Part> parts;  // elements outside all parts (padding) are zero
  bool copy = false;        // its parts lie in another tensor too; readers take that one
};

using Table = std::vector<model::ParameterEntry>;

// The matrix that Part speaks of: that of the parameter's pieces in a Hugging Face folder.
int64_t matrix_rows(const model::ParameterEntry& entry);
int64_t matrix_columns(const model::ParameterEntry& entry);

// Rows [first, first + rows) of a parameter as a tensor of their own.
ForeignTensor rows_of(const Table& table, size_t parameter, int64_t first, int64_t rows);
struct RowRange {
  size_t parameter = 0;
  int64_t first = 0;
  int64_t rows = 0;
};
// All parameters in ranges of about `elements` elements, at least one row each.
std::vector<RowRange> row_ranges(const Table& table, int64_t elements);
// The parameters themselves, each a tensor under its own name.
std::vector<ForeignTensor> own_tensors(const Table& table);

// Throws CheckpointError unless the tensors, copies left out, hold every element of every parameter
// exactly once; names the first parameter and row that they do not.
void check_cover(const Table& table, const std::vector<ForeignTensor>& tensors,
                 const std::string& what);

}  // namespace qianli::convert
