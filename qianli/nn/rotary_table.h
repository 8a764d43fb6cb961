// Cosines and sines of a model's positions.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>

#include "qianli/model/spec.h"
#include "qianli/nn/decoder_input.h"
#include "qianli/ops/rotary.h"

namespace qianli::nn {

// One table for each of a model's rotary rules, made when first asked for and longer as needed.
class RotaryTables {
 public:
  // float32, or float64 when `like` is float64, on its device. `spec` must outlive the tables.
  RotaryTables(const model::ModelSpec& spec, const at::Tensor& like) : spec_(spec), like_(like) {}

  // [positions, r / 2] for at least the positions of the input. `rope` is one of the spec's.
  const ops::RotaryTable& at(const model::Rope& rope, const DecoderInput& input);

 private:
  struct Entry {
    ops::RotaryTable table;
    int64_t sequence_length = 0;  // that the table was made for, where the rule looks at it
  };

  const model::ModelSpec& spec_;
  at::Tensor like_;
  std::map<const model::Rope*, Entry> entries_;
};

}  // namespace qianli::nn
