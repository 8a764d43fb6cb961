// RMSNorm and LayerNorm of rows whose columns ranks share: each has some columns of a row, and two
// sums of a row go round (van de Geijn and Watts 1997's SUMMA layouts; MindSpeed's tp-2d).
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/dist/group.h"
#include "qianli/model/spec.h"
#include "qianli/ops/norm.h"
#include "qianli/ops/parameter.h"

namespace qianli::nn {

struct SharedNorm {
  ops::Parameter* weight = nullptr;  // of this rank's columns
  ops::Parameter* bias = nullptr;    // of LayerNorm, or null
  model::NormKind kind = model::NormKind::kRmsNorm;
  double eps = 1e-5;
  ops::NormWeight weight_kind = ops::NormWeight::kPlain;
  dist::Group columns;  // their ranks
  int64_t width = 0;    // of a whole row
};

// x: [T, this rank's columns], of `width` together. Statistics in float32 (float64 for float64).
at::Tensor shared_norm(const at::Tensor& x, const SharedNorm& norm);

}  // namespace qianli::nn
