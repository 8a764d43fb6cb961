#include "tests/train/layout_equality.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "qianli/base/random.h"
#include "qianli/model/presets.h"
#include "qianli/train/step.h"

namespace qianli::testing {
namespace {

constexpr int64_t kSequence = 16, kMicroBatch = 1, kGlobalBatch = 12;
constexpr double kTolerance = 1e-10;

void make_tiny(model::ModelSpec& spec) {
  spec.num_layers = 4;
  spec.hidden_size = 32;
  spec.ffn_hidden_size = 48;
  spec.num_attention_heads = 4;
  spec.num_query_groups = 2;
  spec.head_dim = 8;
  spec.vocab_size = 40;
  spec.max_position_embeddings = 64;
  spec.init_std = 0.2;
}

void make_tiny(model::MixtureOfExperts& moe) {
  moe.num_experts = 8;
  moe.top_k = 2;
  moe.ffn_hidden_size = 24;
  moe.aux_loss_coeff = 0.01;
}

// A batch of random tokens, a function of the sample; some positions do not count.
data::Batch microbatch(int64_t first_sample, int64_t vocabulary) {
  data::Batch batch{.sequences = kMicroBatch, .sequence_length = kSequence};
  for (int64_t row = 0; row < kMicroBatch; ++row) {
    const int64_t sample = first_sample + row;
    const uint64_t key = random_key(static_cast<uint64_t>(sample), "sample");
    const auto draw = [&](int64_t i, int64_t below) {
      return static_cast<int64_t>(uniform_at(key, static_cast<uint64_t>(i)) *
                                  static_cast<double>(below));
    };
    batch.sample_indices.push_back(sample);
    for (int64_t i = 0; i < kSequence; ++i) {
      batch.tokens.push_back(draw(3 * i, vocabulary));
      batch.labels.push_back(draw(3 * i + 1, vocabulary));
      batch.loss_mask.push_back(draw(3 * i + 2, 4) == 0 ? 0.0F : 1.0F);
      batch.positions.push_back(i);
    }
  }
  return batch;
}

// Megatron's order: blocks of one microbatch for each replica.
std::vector<data::Batch> samples_of(int64_t step, int64_t replica, const Layout& layout,
                                    int64_t vocabulary) {
  std::vector<data::Batch> batches;
  for (int64_t first = 0; first < kGlobalBatch; first += kMicroBatch * layout.data) {
    batches.push_back(microbatch(step * kGlobalBatch + first + replica * kMicroBatch, vocabulary));
  }
  return batches;
}

void expect_near(const at::Tensor& value, const at::Tensor& expected, const std::string& name) {
  const double scale = std::max(expected.abs().max().item<double>(), 1e-30);
  const double difference = (value - expected).abs().max().item<double>();
  EXPECT_LE(difference / scale, kTolerance) << name;
}

}  // namespace

std::vector<std::string> tiny_model_names() {
  return {"llama", "gpt2", "qwen3_moe", "deepseek_v3"};
}

model::ModelSpec tiny_model(const std::string& name) {
  if (name == "llama") {
    model::ModelSpec spec = model::preset("llama-tiny");
    make_tiny(spec);
    return spec;
  }
  if (name == "gpt2") {
    model::ModelSpec spec = model::preset("gpt2-124m");
    make_tiny(spec);
    spec.num_query_groups = spec.num_attention_heads;
    return spec;
  }
  if (name == "qwen3_moe") {
    model::ModelSpec spec = model::preset("qwen3-30b-a3b");
    make_tiny(spec);
    make_tiny(*spec.moe);
    return spec;
  }
  model::ModelSpec spec = model::preset("deepseek-v3-671b");
  make_tiny(spec);
  make_tiny(*spec.moe);
  spec.moe->shared_ffn_hidden_size = 24;
  spec.moe->num_groups = 4;
  spec.moe->topk_groups = 2;
  spec.moe->first_k_dense = 1;
  spec.num_query_groups = spec.num_attention_heads;
  spec.latent_attention = model::LatentAttention{.q_lora_rank = 12,
                                                 .kv_lora_rank = 10,
                                                 .qk_nope_head_dim = 8,
                                                 .qk_rope_head_dim = 4,
                                                 .v_head_dim = 6};
  spec.head_dim = 12;
  return spec;
}

std::string text_of(const Layout& layout) {
  return fmt::format("data {} zero {} buckets of {}{}", layout.data, layout.zero,
                     layout.bucket_elements, layout.overlap ? " overlapped" : "");
}

RunResult run_layout(const model::ModelSpec& spec, const Layout& layout, const dist::World& world) {
  std::vector<int64_t> ranks(static_cast<size_t>(layout.data));
  for (size_t i = 0; i < ranks.size(); ++i) ranks[i] = static_cast<int64_t>(i);
  const dist::Group replicas = world.group(ranks, "data");
  const nn::FlatSharding sharding{.ranks = layout.data, .bucket_elements = layout.bucket_elements};
  nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, /*master=*/true,
                              layout.zero > 0 ? sharding : nn::FlatSharding{}, replicas.rank());
  parameters.initialize(5);
  nn::Decoder decoder(spec, parameters);
  config::OptimConfig config;
  config.lr = 1e-2;
  config.warmup_steps = 0;
  config.weight_decay = 0.1;
  config.clip_grad_norm = 0.5;
  optim::FlatOptimizer optimizer(parameters, config,
                                 optim::DataParallel(replicas, sharding, layout.zero > 0));
  train::Step step(decoder, parameters, optimizer, config, replicas, layout.overlap);
  RunResult result;
  for (int64_t i = 0; i < kEqualitySteps; ++i) {
    const auto done = step.run(samples_of(i, replicas.rank(), layout, spec.vocab_size));
    result.losses.push_back(done.loss);
    result.norms.push_back(done.gradient_norm);
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    result.parameters[parameters.entry(i).name] = parameters.exact(i).to(at::kDouble).clone();
  }
  return result;
}

RunResult run_serially(const model::ModelSpec& spec) { return run_layout(spec, {}, dist::World()); }

void expect_equal(const RunResult& run, const RunResult& serial) {
  for (size_t i = 0; i < serial.losses.size(); ++i) {
    EXPECT_NEAR(run.losses[i] / serial.losses[i], 1.0, kTolerance) << "loss of step " << i;
    EXPECT_NEAR(run.norms[i] / serial.norms[i], 1.0, kTolerance) << "gradient norm of step " << i;
  }
  ASSERT_EQ(run.parameters.size(), serial.parameters.size());
  for (const auto& [name, expected] : serial.parameters) {
    expect_near(run.parameters.at(name), expected, name);
  }
}

}  // namespace qianli::testing
