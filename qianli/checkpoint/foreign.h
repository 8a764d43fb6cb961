// The tensors of a Hugging Face folder, seen from there: which rows of which parameters each holds.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "qianli/nn/parameter_set.h"

namespace qianli::checkpoint {

struct ForeignPart {
  size_t parameter = 0;
  model::ForeignPiece piece;
};

struct ForeignTensor {
  std::string name;
  std::vector<int64_t> shape;  // as stored
  bool buffer = false;         // kept in float32, whatever the weights are stored in
  std::vector<ForeignPart> parts;
};

// Whether a folder has a tensor of this name.
using HasTensor = std::function<bool(const std::string& name)>;

// In the order of the parameters; every tensor is covered by its parts exactly. With `stored`, the
// spelling that the folder has of each parameter; without, the one that is written, copies included.
// Throws ConfigError where the family has no tensor for a part of a parameter.
std::vector<ForeignTensor> foreign_tensors(const nn::ParameterSet& parameters,
                                           const HasTensor& stored = {});

// The rows of a part [rows, columns], or for woven ones [rows / block, block, columns]: views of the
// stored tensor and of the parameter, alike in shape.
at::Tensor foreign_rows(const model::ForeignPiece& piece, const at::Tensor& stored);
at::Tensor own_rows(const model::ForeignPiece& piece, const at::Tensor& parameter);

}  // namespace qianli::checkpoint
