// Every layout against the serial run, in float64: loss, gradients and parameters after some steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "qianli/config/tune_section.h"
#include "qianli/data/batch_source.h"
#include "qianli/dist/world.h"
#include "qianli/model/spec.h"
#include "qianli/nn/mixture_of_experts.h"
#include "qianli/optim/flat_optimizer.h"
#include "qianli/plan/model_part.h"
#include "qianli/plan/schedule.h"

namespace qianli::testing {

// Tiny models of four kinds: Llama, GPT-2, a mixture of experts, and latent attention with a
// mixture and layers of multi-token prediction.
std::vector<std::string> tiny_model_names();
// Of these, and "deepseek_v4" (whose sequences ranks cannot share), and "switches": a Llama with sandwich norms, norms of heads, sinks and biases.
model::ModelSpec tiny_model(const std::string& name);

struct Layout {
  int64_t data = 1;
  data::ContextOptions context = {};
  int64_t zero = 0;
  int64_t zero_ranks = 0;
  int64_t zero_parameter_ranks = 0;
  bool overlap_gather = true;
  int64_t gather_ahead = 1;
  std::string reduce_dtype = "fp32";
  at::ScalarType dtype = at::kDouble;
  int64_t bucket_elements = 1000;
  bool overlap = true;
  int64_t tensor = 1;
  bool sequence = false;
  int64_t tensor_slices = 1;
  int64_t tensor_x = 1, tensor_y = 1;
  int64_t expert = 1;
  int64_t expert_tensor = 0;
  std::string expert_dispatcher = "all_to_all";
  int64_t pipeline = 1;
  int64_t chunks = 1;             // of a stage
  std::string schedule = "1f1b";  // as plan::schedule_names() has it
  int64_t slices = 1;             // of a sequence
  std::string slicing = "even";   // or work
  std::string split;              // layers of each chunk ("[[1,0],[2,1]]"); empty: even
  std::string recompute = "none";
  int64_t samples = 12;          // of a step
  int64_t rows = 1;              // samples of a microbatch
  bool several_lengths = false;  // of the sequences of different samples
  bool packed = false;           // two documents in each sample
  double dropout = 0;            // of attention, hidden states and embedding
  double noise = 0;              // NEFTune's alpha
  bool means_of_microbatches = false;
  // Microbatches of a step for a rank, in the place of made-up samples.
  std::function<std::vector<data::Batch>(const data::BatchLayout&, int64_t step)> source = {};
  double lr = 1e-2;
  config::TuneConfig tune = {};
  std::string poisoned;  // a parameter, a number of which is NaN on its last rank

  int64_t ranks() const { return data * tensor * context.size * pipeline; }
  int64_t microbatches() const { return samples / (data * rows); }
};
std::string text_of(const Layout& layout);

// What a run leaves: of each step the loss and the gradient norm, and the parameters at the end.
struct RunResult {
  std::vector<double> losses, norms, labels, correct;
  double evaluation = 0;  // loss of a step's samples without gradients, after all steps
  std::optional<nn::StepRouting> routing;  // of the last step, on the first stage
  int64_t stage = 0;
  int64_t peak_units = 0;    // of this stage in the last step
  double tensor_bytes = 0;   // to the ranks of its tensor group, and of its parts
  double expert_bytes = 0;   // to the ranks of its group of experts
  double message_bytes = 0;  // that this stage sent to others in all steps
  std::map<std::string, at::Tensor> parameters;  // what the rank holds, float64
  std::map<std::string, plan::ParameterPart> parts;
  optim::OptimizerMemory memory;
  double replica_bytes = 0;  // sent to those that hold the same, in the last step
  std::map<std::string, int64_t> unit_elements;  // of the dense region, padded
};

constexpr int64_t kEqualitySteps = 3;

// The run's part of one rank. Samples and weights are the same in every layout.
RunResult run_layout(const model::ModelSpec& spec, const Layout& layout, const dist::World& world);
RunResult run_serially(const model::ModelSpec& spec, const Layout& samples = {});
plan::Schedule schedule_of(const Layout& layout);
plan::ModelPart part_of(const Layout& layout);  // of the first rank

// What a rank holds of a whole parameter.
at::Tensor held_of(at::Tensor whole, const plan::ParameterPart& part);

// Fails the test where they differ by more than 1e-10 of the largest number compared.
void expect_equal(const RunResult& run, const RunResult& serial);

}  // namespace qianli::testing
