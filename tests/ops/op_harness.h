// One harness for all ops: a case is a function of activations and parameters; it is checked for
//   - its gradient, in float64, against central differences;
//   - its kernels, in float32 and bfloat16, against the reference, values and gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "qianli/ops/parameter.h"

namespace qianli::testing {

using Tensors = std::vector<at::Tensor>;
using Parameters = std::vector<std::unique_ptr<ops::Parameter>>;

struct OpCase {
  std::string name;  // shown in failures
  std::string op;    // as in `qianli backends`
  Tensors inputs;      // float64 values; floating ones are differentiated
  Tensors parameters;  // float64 values
  std::function<at::Tensor(const Tensors& inputs, const Parameters& parameters)> run;
  double float_tolerance = 2e-6;
  double bfloat16_tolerance = 2e-2;
};

// Output, input gradients and parameter gradients for one random cotangent.
struct OpResult {
  at::Tensor output;
  Tensors input_grads;
  Tensors parameter_grads;
};
OpResult evaluate(const OpCase& op_case, at::ScalarType dtype);

void check_gradient(const OpCase& op_case);
void check_kernels_against_reference(const OpCase& op_case, at::ScalarType dtype);
void check_all(const OpCase& op_case);

// Reproducible normal values, float64.
at::Tensor normal(std::initializer_list<int64_t> shape, uint64_t seed);

}  // namespace qianli::testing
