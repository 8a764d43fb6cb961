#include "tests/train/layout_equality.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "qianli/base/random.h"
#include "qianli/model/presets.h"
#include "qianli/plan/layers.h"
#include "qianli/plan/mesh.h"
#include "qianli/train/ranks.h"
#include "qianli/train/step.h"

namespace qianli::testing {
namespace {

constexpr int64_t kSequence = 16;
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

// A microbatch of one sequence of random tokens, a function of the sample; some positions do not
// count.
data::Batch microbatch(int64_t sample, int64_t length, int64_t vocabulary, bool packed) {
  data::Batch batch{.sequences = 1, .sequence_length = length};
  const uint64_t key = random_key(static_cast<uint64_t>(sample), "sample");
  const auto draw = [&](int64_t i, int64_t below) {
    return static_cast<int64_t>(uniform_at(key, static_cast<uint64_t>(i)) *
                                static_cast<double>(below));
  };
  batch.sample_indices.push_back(sample);
  const int64_t border = packed ? 1 + draw(3 * length, length - 1) : length;
  for (int64_t i = 0; i < length; ++i) {
    batch.tokens.push_back(draw(3 * i, vocabulary));
    batch.labels.push_back(draw(3 * i + 1, vocabulary));
    batch.loss_mask.push_back(draw(3 * i + 2, 4) == 0 ? 0.0F : 1.0F);
    batch.positions.push_back(i < border ? i : i - border);
  }
  if (packed) batch.segment_ends = {border, length};
  return batch;
}

struct Groups {
  train::StepRanks step;
  nn::Parallel parallel;

  Groups(const Layout& layout, const dist::World& world) {
    const plan::Mesh mesh(
        {.world = layout.ranks(), .context = layout.context.size, .pipeline = layout.pipeline});
    const auto of = [&](const plan::Axes& axes) { return mesh.dense().group(world.rank(), axes); };
    step = {.replicas = world.group(of({plan::Axis::kContext, plan::Axis::kData}), "data"),
            .stages = world.group(of({plan::Axis::kPipeline}), "stages"),
            .pipeline = world.group(of({plan::Axis::kPipeline}), "pipeline"),
            .everyone = world.all()};
    step.sharers = step.pipeline;
    parallel = train::parallel_groups(world, mesh, layout.context);
  }
};

// Megatron's order: blocks of one microbatch for each replica.
std::vector<data::Batch> samples_of(int64_t step, const Groups& groups, const Layout& layout,
                                    const model::ModelSpec& spec) {
  const int64_t replica = groups.step.replicas.rank() / layout.context.size;
  std::vector<data::Batch> batches;
  for (int64_t m = 0; m < layout.microbatches(); ++m) {
    const int64_t sample = step * layout.samples + m * layout.data + replica;
    const int64_t length = layout.several_lengths ? kSequence - 3 * (sample % 4) : kSequence;
    batches.push_back(microbatch(sample, length, spec.vocab_size, layout.packed));
    if (layout.context.size == 1) continue;
    batches.back() = data::deal_out(batches.back(), layout.context, groups.parallel.context.rank(),
                                    spec.mtp.num_layers);
  }
  return batches;
}

plan::ScheduleOptions options_of(const Layout& layout) {
  return {.kind = plan::schedule_kind(layout.schedule),
          .stages = layout.pipeline,
          .microbatches = layout.microbatches(),
          .chunks = layout.chunks,
          .recompute = layout.recompute};
}

// The chunks of a stage.
std::vector<plan::ChunkLayers> chunks_of(const model::ModelSpec& spec, const Layout& layout,
                                         int64_t stage) {
  plan::LayerSplit split{.layers = spec.num_layers,
                         .mtp_layers = spec.mtp.num_layers,
                         .stages = layout.pipeline,
                         .chunks = layout.chunks,
                         .folded = layout.schedule == "dualpipev"};
  if (!layout.split.empty()) split.table = plan::parse_layer_table(layout.split);
  return plan::place_layers(split)[static_cast<size_t>(stage)];
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
  return fmt::format(
      "data {} context {} (algorithm {}, inner {}, window {}) zero {} buckets of {}{} pipeline {} "
      "x "
      "{} {} [{}] recompute {}, {} samples{}",
      layout.data, layout.context.size, static_cast<int>(layout.context.algorithm),
      layout.context.inner, layout.context.window, layout.zero, layout.bucket_elements,
      layout.overlap ? " overlapped" : "", layout.pipeline, layout.chunks, layout.schedule,
      layout.split, static_cast<int>(layout.recompute), layout.samples,
      layout.packed ? ", packed" : "");
}

plan::Schedule schedule_of(const Layout& layout) { return plan::make_schedule(options_of(layout)); }

RunResult run_layout(const model::ModelSpec& spec, const Layout& layout, const dist::World& world) {
  const Groups groups(layout, world);
  const dist::Group& replicas = groups.step.replicas;
  const nn::FlatSharding sharding{.ranks = replicas.size(),
                                  .bucket_elements = layout.bucket_elements};
  nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, /*master=*/true,
                              layout.zero > 0 ? sharding : nn::FlatSharding{}, replicas.rank());
  parameters.initialize(5);
  std::vector<std::unique_ptr<nn::Decoder>> chunks;
  std::vector<nn::Decoder*> decoders;
  for (const auto& part : chunks_of(spec, layout, groups.step.stages.rank())) {
    chunks.push_back(std::make_unique<nn::Decoder>(spec, parameters, part, groups.parallel));
    decoders.push_back(chunks.back().get());
  }
  train::StepOptions options{.overlap = layout.overlap && layout.pipeline == 1,
                             .schedule = options_of(layout)};
  options.optim.lr = 1e-2;
  options.optim.warmup_steps = 0;
  options.optim.weight_decay = 0.1;
  options.optim.clip_grad_norm = 0.5;
  // Gradients that are zero but for rounding (of keys' biases) must not become steps.
  options.optim.eps = 1e-5;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters.entry(i).buffer) options.shared.push_back(i);
  }
  optim::FlatOptimizer optimizer(parameters, options.optim,
                                 optim::DataParallel(replicas, sharding, layout.zero > 0));
  train::Step step(decoders, parameters, optimizer, options, groups.step);
  RunResult result;
  const auto samples = [&](int64_t i) { return samples_of(i, groups, layout, spec); };
  for (int64_t i = 0; i < kEqualitySteps; ++i) {
    const auto done = step.run(samples(i));
    result.losses.push_back(done.loss);
    result.norms.push_back(done.gradient_norm);
    result.routing = done.routing;
  }
  result.peak_units = step.peak_units();
  result.message_bytes = groups.step.stages.traffic().bytes;
  const auto evaluation = step.evaluate(samples(kEqualitySteps));
  const auto sums = step.sum({evaluation.loss_sum, evaluation.tokens});
  result.evaluation = sums[0] / sums[1];
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters.entry(i).buffer)
      result.parameters[parameters.entry(i).name] = parameters.exact(i).to(at::kDouble).clone();
  }
  return result;
}

RunResult run_serially(const model::ModelSpec& spec, const Layout& samples) {
  return run_layout(spec,
                    {.samples = samples.samples,
                     .several_lengths = samples.several_lengths,
                     .packed = samples.packed},
                    dist::World());
}

void expect_equal(const RunResult& run, const RunResult& serial) {
  for (size_t i = 0; i < serial.losses.size(); ++i) {
    EXPECT_NEAR(run.losses[i] / serial.losses[i], 1.0, kTolerance) << "loss of step " << i;
    EXPECT_NEAR(run.norms[i] / serial.norms[i], 1.0, kTolerance) << "gradient norm of step " << i;
  }
  EXPECT_NEAR(run.evaluation / serial.evaluation, 1.0, kTolerance) << "loss without gradients";
  ASSERT_EQ(run.parameters.size(), serial.parameters.size());
  for (const auto& [name, expected] : serial.parameters) {
    expect_near(run.parameters.at(name), expected, name);
  }
}

}  // namespace qianli::testing
