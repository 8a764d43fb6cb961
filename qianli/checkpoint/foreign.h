// The tensors of a Hugging Face folder, seen from there: which rows of which parameters each holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qianli/nn/parameter_set.h"

namespace qianli::checkpoint {

// Rows [foreign_row, foreign_row + rows) of the foreign tensor, after transposing, are rows
// [first_row, first_row + rows) of parameter `parameter`.
struct ForeignPart {
  size_t parameter = 0;
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t foreign_row = 0;
};

struct ForeignTensor {
  std::string name;
  std::vector<int64_t> shape;  // as stored
  bool transposed = false;     // stored as [columns, rows]
  std::vector<ForeignPart> parts;
};

// In the order of the parameters. Throws ConfigError where the family has no tensor for a part of a
// parameter.
std::vector<ForeignTensor> foreign_tensors(const nn::ParameterSet& parameters);

}  // namespace qianli::checkpoint
