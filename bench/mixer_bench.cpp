// Forward and backward of one mixer on random activations: our side of
// bench/compare_mixers.sh.
//
//   mixer_bench gated_delta_net|mamba2|latent_attention [STEPS]
//
// gated_delta_net: hidden 1024, 8 key and 16 value heads of 128, 2 x 1024 tokens.
// mamba2:          hidden 512, 16 heads of 64, state 128, one group, 2 x 512 tokens.
// latent_attention: DeepSeek-V3's, hidden 1024, 16 heads of 64 + 32, values of 64, latents of 384
//                  (queries) and 256, 2 x 1024 tokens.
// The median step after two warm-up steps counts.
#include <ATen/ops/arange.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/core.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "qianli/base/threads.h"
#include "qianli/device/device.h"
#include "qianli/nn/gated_delta_net.h"
#include "qianli/nn/latent_attention.h"
#include "qianli/nn/mamba2_mixer.h"

namespace qianli {
namespace {

struct Shape {
  model::ModelSpec spec;
  int64_t sequences, length;
};

Shape shape_of(const std::string& name) {
  model::ModelSpec spec;
  spec.family = "llama";
  spec.num_layers = 1;
  spec.hidden_size = name == "mamba2" ? 512 : 1024;
  spec.ffn_hidden_size = 64;
  spec.vocab_size = 64;
  spec.max_position_embeddings = 1024;
  if (name == "mamba2") {
    spec.layer_pattern = {model::MixerKind::kMamba2};
    spec.mamba2 = model::Mamba2{.inner_size = 1024};
    return {spec, 2, 512};
  }
  if (name == "latent_attention") {
    spec.num_attention_heads = spec.num_query_groups = 16;
    spec.head_dim = 96;
    spec.latent_attention = model::LatentAttention{.q_lora_rank = 384,
                                                   .kv_lora_rank = 256,
                                                   .qk_nope_head_dim = 64,
                                                   .qk_rope_head_dim = 32,
                                                   .v_head_dim = 64};
    return {spec, 2, 1024};
  }
  spec.layer_pattern = {model::MixerKind::kGatedDeltaNet};
  spec.gated_delta_net = model::GatedDeltaNet{
      .num_key_heads = 8, .num_value_heads = 16, .key_head_dim = 128, .value_head_dim = 128};
  return {spec, 2, 1024};
}

std::unique_ptr<nn::Block> mixer_of(const Shape& shape, nn::ParameterSet& parameters) {
  const std::string layer = "decoder.layers.0.";
  if (shape.spec.mamba2) {
    return std::make_unique<nn::Mamba2Mixer>(shape.spec, parameters, layer + "mixer", 0);
  }
  if (shape.spec.latent_attention) {
    return std::make_unique<nn::LatentAttention>(shape.spec, parameters, "decoder.layers.0", 0);
  }
  return std::make_unique<nn::GatedDeltaNet>(shape.spec, parameters, layer + "self_attention", 0);
}

void run(const std::string& name, int steps) {
  device::start();
  const Shape shape = shape_of(name);
  nn::ParameterSet parameters(shape.spec, at::kFloat, at::kCPU, false);
  parameters.initialize(1);
  for (size_t i = 0; i < parameters.size(); ++i) {
    parameters.at(i).attach_grad(at::zeros_like(parameters.at(i).value()));
  }
  const auto mixer = mixer_of(shape, parameters);
  const int64_t tokens = shape.sequences * shape.length;
  const at::Tensor positions = at::arange(tokens).remainder(shape.length);
  nn::DecoderInput input{.tokens = positions,  // only counted
                         .positions = positions,
                         .max_position = shape.length - 1,
                         .segment_starts = {0, shape.length, tokens}};
  const at::Tensor x = at::randn({tokens, shape.spec.hidden_size}).requires_grad_(true);
  const at::Tensor grad = at::randn(x.sizes());
  nn::RotaryTables tables(shape.spec, x);
  const nn::Observer observer;
  std::vector<double> seconds;
  for (int step = 0; step < steps + 2; ++step) {
    for (size_t i = 0; i < parameters.size(); ++i) parameters.at(i).reset_grad();
    x.mutable_grad() = at::Tensor();
    const auto start = std::chrono::steady_clock::now();
    const nn::Parallel alone;
    nn::ForwardPass pass{.input = input, .rotary = tables, .observer = observer, .parallel = alone};
    const nn::BlockInput given(x, pass);
    torch::autograd::backward({mixer->forward(given, pass).part(pass.parallel)}, {grad});
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (step >= 2) seconds.push_back(taken.count());
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  fmt::print(
      "{{\"mixer\": \"{}\", \"threads\": {}, \"step_seconds\": {:.5f}, "
      "\"tokens_per_second\": {:.1f}}}\n",
      name, available_cores(), median, static_cast<double>(tokens) / median);
}

}  // namespace
}  // namespace qianli

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  const bool known = name == "gated_delta_net" || name == "mamba2" || name == "latent_attention";
  const int steps = argc > 2 ? std::atoi(argv[2]) : 5;
  if (!known || steps < 1) {
    fmt::print(stderr, "usage: mixer_bench gated_delta_net|mamba2|latent_attention [STEPS]\n");
    return 2;
  }
  qianli::run(name, steps);
}
