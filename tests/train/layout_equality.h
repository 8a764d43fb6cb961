// Every layout against the serial run, in float64: loss, gradients and parameters after some steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "qianli/dist/world.h"
#include "qianli/model/spec.h"

namespace qianli::testing {

// Tiny models of four kinds: Llama, GPT-2, a mixture of experts, and latent attention with a
// mixture and layers of multi-token prediction.
std::vector<std::string> tiny_model_names();
model::ModelSpec tiny_model(const std::string& name);

struct Layout {
  int64_t data = 1;
  int64_t zero = 0;
  int64_t bucket_elements = 1000;
  bool overlap = true;

  int64_t ranks() const { return data; }
};
std::string text_of(const Layout& layout);

// What a run leaves: of each step the loss and the gradient norm, and the parameters at the end.
struct RunResult {
  std::vector<double> losses, norms;
  std::map<std::string, at::Tensor> parameters;  // whole, float64
};

constexpr int64_t kEqualitySteps = 3;

// The run's part of one rank. Samples and weights are the same in every layout.
RunResult run_layout(const model::ModelSpec& spec, const Layout& layout, const dist::World& world);
RunResult run_serially(const model::ModelSpec& spec);

// Fails the test where they differ by more than 1e-10 of the largest number compared.
void expect_equal(const RunResult& run, const RunResult& serial);

}  // namespace qianli::testing
