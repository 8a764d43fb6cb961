// A mixture-of-experts block, forward and backward, on random tokens in float32: our side of
// bench/compare_moe.sh. The shapes are those of tools/reference/bench_moe.py.
//
//   moe_bench [SHAPE] [SECONDS]
//
// One JSON line per shape; the median of the repetitions counts.
#include <ATen/ops/arange.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "qianli/device/device.h"
#include "qianli/nn/mixture_of_experts.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/ops/dispatch.h"

namespace qianli {
namespace {

struct Shape {
  std::string name;
  int64_t tokens, hidden, width, experts, choices;
  bool normalize;  // Qwen3-MoE; else Mixtral's softmax over the chosen
};

const std::vector<Shape> kShapes = {
    {"mixtral-tiny", 1024, 512, 1024, 8, 2, false},
    {"mixtral-small", 1024, 1024, 2048, 8, 2, false},
    {"qwen3-tiny", 1024, 512, 256, 64, 8, true},
    {"qwen3-small", 1024, 1024, 384, 128, 8, true},
};

model::ModelSpec spec_of(const Shape& shape) {
  model::ModelSpec spec;
  spec.family = "llama";
  spec.num_layers = 1;
  spec.hidden_size = shape.hidden;
  spec.ffn_hidden_size = shape.width;
  spec.num_attention_heads = spec.num_query_groups = 2;
  spec.head_dim = 8;
  spec.vocab_size = 8;
  spec.max_position_embeddings = shape.tokens;
  spec.moe = model::MixtureOfExperts{
      .num_experts = shape.experts,
      .top_k = shape.choices,
      .ffn_hidden_size = shape.width,
      .score = shape.normalize ? model::RouterScore::kSoftmax : model::RouterScore::kTopKSoftmax,
      .normalize_top_k = shape.normalize};
  return spec;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void run(const Shape& shape, double seconds) {
  const model::ModelSpec spec = spec_of(shape);
  nn::ParameterSet parameters(spec, at::kFloat, at::kCPU, /*master=*/false);
  parameters.initialize(1);
  const at::Tensor gradients = at::zeros_like(parameters.flat());
  for (size_t i = 0; i < parameters.size(); ++i) {
    parameters.at(i).attach_grad(parameters.view(gradients, i));
  }
  nn::MixtureOfExperts mixture(spec, spec.layer(0), parameters, "decoder.layers.0.mlp");
  const at::Tensor x = at::randn({shape.tokens, shape.hidden}).requires_grad_(true);
  const at::Tensor grad = at::randn({shape.tokens, shape.hidden});
  const nn::DecoderInput input{.tokens = at::zeros({shape.tokens}, at::kLong),
                               .positions = at::arange(shape.tokens),
                               .max_position = shape.tokens - 1,
                               .segment_starts = {0, shape.tokens},
                               .training = true};
  std::vector<double> times;
  const auto begin = std::chrono::steady_clock::now();
  while (times.size() < 6 || seconds_since(begin) < seconds) {
    for (size_t i = 0; i < parameters.size(); ++i) parameters.at(i).reset_grad();
    x.mutable_grad() = at::Tensor();
    const auto start = std::chrono::steady_clock::now();
    mixture.forward(x, input).backward(grad);
    times.push_back(seconds_since(start));
  }
  times.erase(times.begin());  // the first touches memory
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  const double flops = 18.0 * static_cast<double>(shape.tokens * shape.choices) *
                       static_cast<double>(shape.hidden * shape.width);
  fmt::print(
      "{{\"shape\": \"{}\", \"side\": \"ours\", \"threads\": {}, \"seconds\": {:.5f}, "
      "\"best_seconds\": {:.5f}, \"gflops\": {:.1f}}}\n",
      shape.name, device::threads(), median, times.front(), flops / median * 1e-9);
}

}  // namespace
}  // namespace qianli

int main(int argc, char** argv) {
  const std::string wanted = argc > 1 ? argv[1] : "";
  qianli::device::start();
  for (const auto& shape : qianli::kShapes) {
    if (wanted.empty() || shape.name == wanted) {
      qianli::run(shape, argc > 2 ? std::atof(argv[2]) : 2.0);
    }
  }
  return 0;
}
