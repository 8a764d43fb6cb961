// Cosines and sines of a model's positions.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/model/spec.h"
#include "qianli/ops/rotary.h"

namespace qianli::nn {

// float32, or float64 when `like` is float64, on its device: [positions, D/2]. `sequence_length` only
// matters to scalings that depend on it (dynamic).
ops::RotaryTable rotary_table(const model::ModelSpec& spec, const at::Tensor& like, int64_t positions,
                              int64_t sequence_length);

}  // namespace qianli::nn
