// Training speed on random tokens: our side of bench/compare_training.sh and of
// tools/reference/bench_families.py.
//
//   train_bench llama|gpt2|smollm2|FOLDER [STEPS] [PRECISION] [full|lora|nf4]
//
// llama:  hidden 512, 8 layers, 8 heads, ffn 1376, vocabulary 32000, untied, 8 x 256.
// gpt2:   GPT-2 124M, 4 x 256.
// smollm2: SmolLM2 135M, 4 x 256.
// lora:   adapters of rank 16 beside every linear layer; nf4: with those in 4 bits.
// FOLDER: the model of its config.json, 4 x 256.
// The median step after two warm-up steps counts.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "qianli/base/random.h"
#include "qianli/base/threads.h"
#include "qianli/device/device.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/parameter_table.h"
#include "qianli/model/presets.h"
#include "qianli/model/tuned_table.h"
#include "qianli/nn/decoder.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/peak.h"
#include "qianli/optim/flat_optimizer.h"
#include "qianli/train/step.h"

namespace qianli {
namespace {

struct Shape {
  model::ModelSpec spec;
  int64_t sequences, length;
};

Shape shape_of(const std::string& name) {
  if (name == "smollm2") return {model::preset("smollm2-135m"), 4, 256};
  if (name != "llama" && name != "gpt2") {
    model::ModelSpec spec = model::load_spec(name);
    spec.mtp.num_layers = 0;  // transformers trains without these heads
    return {spec, 4, 256};
  }
  model::ModelSpec spec;
  spec.hidden_size = 512;
  spec.num_layers = 8;
  spec.num_attention_heads = spec.num_query_groups = 8;
  spec.head_dim = 64;
  spec.ffn_hidden_size = 1376;
  spec.vocab_size = 32000;
  spec.max_position_embeddings = 256;
  spec.family = "llama";
  if (name == "llama") return {spec, 8, 256};
  spec.family = "gpt2";
  spec.hidden_size = 768;
  spec.num_layers = 12;
  spec.num_attention_heads = spec.num_query_groups = 12;
  spec.ffn_hidden_size = 3072;
  spec.vocab_size = 50257;
  spec.max_position_embeddings = 1024;
  spec.norm = model::NormKind::kLayerNorm;
  spec.norm_bias = spec.qkv_bias = spec.attention_out_bias = spec.mlp_bias = true;
  spec.position = model::PositionKind::kLearned;
  spec.gated_mlp = false;
  spec.activation = model::Activation::kGeluTanh;
  spec.tie_word_embeddings = true;
  return {spec, 4, 256};
}

data::Batch random_batch(const Shape& shape, uint64_t seed) {
  data::Batch batch{.sequences = shape.sequences, .sequence_length = shape.length};
  for (int64_t i = 0; i < shape.sequences * shape.length; ++i) {
    const auto draw = [&](uint64_t stream) {
      return static_cast<int64_t>(uniform_at(random_key(seed, "bench"), 2 * i + stream) *
                                  static_cast<double>(shape.spec.vocab_size));
    };
    batch.tokens.push_back(draw(0));
    batch.labels.push_back(draw(1));
    batch.loss_mask.push_back(1.0f);
    batch.positions.push_back(i % shape.length);
  }
  return batch;
}

// Of all threads of this process.
double processor_seconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

config::TuneConfig tuning(const std::string& method) {
  config::TuneConfig tune;
  if (method == "full") return tune;
  tune.method = "lora";
  tune.r = 16;
  tune.alpha = 32;
  if (method == "nf4") tune.quantization = method;
  return tune;
}

void run(const std::string& name, int steps, const std::string& precision,
         const config::TuneConfig& tune) {
  device::start();
  const c10::Device device = device::choose("auto");
  ops::load_cuda_kernels();
  const auto compute = device::choose_compute_type(precision, device);
  const Shape shape = shape_of(name);
  nn::ParameterSet parameters(shape.spec, compute.dtype, device, true, {}, {}, &tune);
  parameters.initialize(1);
  nn::Decoder decoder(shape.spec, parameters);
  config::OptimConfig config;
  config.lr_schedule = "constant";
  optim::FlatOptimizer optimizer(parameters, config);
  train::Step step({&decoder}, parameters, optimizer, {.optim = config});
  std::vector<double> seconds;
  double loss = 0, busy = 0;
  for (int i = 0; i < steps + 2; ++i) {
    const std::vector<data::Batch> batch{random_batch(shape, i)};
    if (i == 2) busy = processor_seconds();
    const auto begin = std::chrono::steady_clock::now();
    loss = step.run(batch).loss;
    if (i >= 2)
      seconds.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  busy = (processor_seconds() - busy) / steps;
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  const double median = seconds[seconds.size() / 2];
  const double rate = static_cast<double>(shape.sequences * shape.length) / median;
  const double flops =
      model::tuned_training_flops(shape.spec, tune, shape.sequences, shape.length) / median;
  fmt::print(
      "{{\"model\": \"{}\", \"precision\": \"{}\", \"threads\": {}, \"tokens_per_second\": {:.1f}, "
      "\"step_seconds\": {:.4f}, \"processor_seconds_per_1000_tokens\": {:.3f}, "
      "\"loss\": {:.4f}, \"peak_rss_bytes\": {}, \"model_gflops\": {:.1f}, "
      "\"gemm_peak_gflops\": {:.1f}}}\n",
      name, device::dtype_name(compute.dtype), device::threads(), rate, median,
      1000 * busy / static_cast<double>(shape.sequences * shape.length), loss,
      peak_resident_bytes(), flops / 1e9, ops::measure_gemm_flops(device, compute.dtype) / 1e9);
}

}  // namespace
}  // namespace qianli

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  if (name.empty()) {
    fmt::print(stderr,
               "usage: train_bench llama|gpt2|smollm2|FOLDER [STEPS] [PRECISION] "
               "[full|lora|nf4]\n");
    return 2;
  }
  qianli::run(name, argc > 2 ? std::atoi(argv[2]) : 5, argc > 3 ? argv[3] : "fp32",
              qianli::tuning(argc > 4 ? argv[4] : "full"));
  return 0;
}
