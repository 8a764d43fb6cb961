#include "tests/train/layout_equality.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>

#include "qianli/base/random.h"
#include "qianli/dist/rank_threads.h"
#include "qianli/model/presets.h"
#include "qianli/ops/quantized_weight.h"
#include "qianli/plan/stages.h"
#include "qianli/train/stage.h"
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

model::ModelSpec tiny_deepseek_v4() {
  using Kind = model::MixerKind;
  model::ModelSpec spec = model::preset("deepseek-v4-flash-284b");
  make_tiny(spec);
  make_tiny(*spec.moe);
  spec.num_query_groups = 1;
  spec.layer_pattern = {Kind::kSlidingAttention, Kind::kSparseCompressed, Kind::kHeavyCompressed,
                        Kind::kSparseCompressed};
  spec.sliding_window = 3;
  spec.compressed_attention = model::CompressedAttention{.q_lora_rank = 12,
                                                         .output_groups = 2,
                                                         .output_lora_rank = 6,
                                                         .sparse_ratio = 2,
                                                         .heavy_ratio = 5};
  // So many heads that no two scores are 0: equal ones have no order.
  spec.indexer = model::Indexer{.num_heads = 16, .head_dim = 6, .top_k = 2};
  spec.rope.fraction = spec.sliding_rope->fraction = 0.5;
  spec.hyper_connections = model::HyperConnections{.streams = 3, .sinkhorn_iterations = 4};
  spec.activation_limit = {0.5};
  spec.moe->shared_ffn_hidden_size = 24;
  spec.moe->num_hash_layers = 2;
  return spec;
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

// The rows of all batches as one batch.
data::Batch joined(const std::vector<data::Batch>& rows) {
  data::Batch all{.sequence_length = rows.front().sequence_length};
  const auto append = [](auto& to, const auto& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  for (const data::Batch& row : rows) {
    for (const int64_t end : row.segment_ends)
      all.segment_ends.push_back(static_cast<int64_t>(all.tokens.size()) + end);
    append(all.tokens, row.tokens);
    append(all.labels, row.labels);
    append(all.loss_mask, row.loss_mask);
    append(all.positions, row.positions);
    append(all.sample_indices, row.sample_indices);
    ++all.sequences;
  }
  return all;
}

// Megatron's order: blocks of one microbatch for each replica.
std::vector<data::Batch> samples_of(int64_t step, const train::Ranks& ranks, const Layout& layout,
                                    const model::ModelSpec& spec) {
  data::ContextOptions together = layout.context;
  together.size *= layout.tensor_y;
  const int64_t context_rank = ranks.parallel.context.rank() * layout.tensor_y;
  if (layout.source) {
    return layout.source({.global_batch_size = layout.samples,
                          .micro_batch_size = layout.rows,
                          .data_parallel_rank = ranks.samples.index,
                          .data_parallel_size = layout.data,
                          .context = together,
                          .context_rank = context_rank,
                          .context_neighbours = layout.tensor_y,
                          .depths = spec.mtp.num_layers,
                          .least_tokens = layout.context.size * layout.tensor},
                         step);
  }
  std::vector<data::Batch> batches;
  for (int64_t m = 0; m < layout.microbatches(); ++m) {
    std::vector<data::Batch> rows;
    for (int64_t row = 0; row < layout.rows; ++row) {
      const int64_t sample =
          step * layout.samples + (m * layout.data + ranks.samples.index) * layout.rows + row;
      const int64_t length = layout.several_lengths ? kSequence - 3 * (sample % 4) : kSequence;
      rows.push_back(microbatch(sample, length, spec.vocab_size, layout.packed));
    }
    batches.push_back(joined(rows));
    if (together.size == 1) continue;
    batches.back() = data::deal_out(batches.back(), together, context_rank, spec.mtp.num_layers,
                                    layout.tensor_y);
  }
  return batches;
}

constexpr const char* kAlgorithms[] = {"ring", "ulysses", "hybrid", "kv_allgather", "adaptive"};

config::ParallelConfig config_of(const Layout& layout) {
  return {.tensor = layout.tensor,
          .tensor_x = layout.tensor_x,
          .tensor_y = layout.tensor_y,
          .tensor_slices = layout.tensor_slices,
          .sequence = layout.sequence,
          .pipeline = layout.pipeline,
          .pipeline_chunks = layout.chunks,
          .schedule = layout.schedule,
          .schedule_slices = layout.slices,
          .schedule_slicing = layout.slicing,
          .recompute = layout.recompute,
          .layers = layout.split,
          .context = layout.context.size,
          .context_algorithm = kAlgorithms[static_cast<size_t>(layout.context.algorithm)],
          .context_ulysses = layout.context.inner,
          .context_window = layout.context.window,
          .expert = layout.expert,
          .expert_tensor = layout.expert_tensor,
          .expert_dispatcher = layout.expert_dispatcher,
          .zero = layout.zero,
          .zero_ranks = layout.zero_ranks,
          .zero_parameter_ranks = layout.zero_parameter_ranks,
          .reduce_dtype = layout.reduce_dtype,
          .overlap_grad_reduce = layout.overlap,
          .overlap_param_gather = layout.overlap_gather,
          .gather_ahead = layout.gather_ahead,
          .bucket_elements = layout.bucket_elements};
}

// B is zero at the start, and A then has no gradient.
void draw_adapters(nn::ParameterSet& parameters) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    const model::ParameterEntry& entry = parameters.entry(i);
    if (!entry.name.ends_with(".lora_B")) continue;
    std::vector<float> values(static_cast<size_t>(entry.elements()));
    fill_normal(random_key(11, entry.name), 0, values.size(), 0.0, 0.1, values.data());
    parameters.write(i, 0, at::from_blob(values.data(), {entry.elements()}, at::kFloat));
  }
}

// Numbers that 4 bits hold, in any block of any part of a matrix: their largest magnitude is 0.5.
void draw_codes(nn::ParameterSet& parameters) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters.part(i).quantized) continue;
    const model::ParameterEntry& entry = parameters.entry(i);
    const uint64_t key = random_key(12, entry.name);
    std::vector<float> values(static_cast<size_t>(entry.elements()));
    for (size_t k = 0; k < values.size(); ++k) {
      const bool largest = k % static_cast<size_t>(entry.shape.back()) % 4 == 0;
      const auto code = static_cast<size_t>(16 * uniform_at(key, k));
      values[k] = 0.5F * (largest ? (code < 8 ? -1.0F : 1.0F) : ops::nf4_numbers()[code]);
    }
    parameters.write(i, 0, at::from_blob(values.data(), {entry.elements()}, at::kFloat));
  }
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
  if (name == "gpt_oss") {
    model::ModelSpec spec = model::preset("gpt-oss-20b");
    make_tiny(spec);
    make_tiny(*spec.moe);
    return spec;
  }
  if (name == "switches") {
    model::ModelSpec spec = model::preset("llama-tiny");
    make_tiny(spec);
    spec.norm_placement = model::NormPlacement::kSandwich;
    spec.norm_zero_centered = true;
    spec.qk_norm = model::QkNorm::kHead;
    spec.attention_sinks = true;
    spec.qkv_bias = spec.attention_out_bias = true;
    spec.embedding_multiplier = 3.0;
    return spec;
  }
  if (name == "deepseek_v4") return tiny_deepseek_v4();
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
      "data {} context {} (algorithm {}, inner {}, window {}) tensor {} ({} x {}){} in {} slices "
      "expert {} of {} zero {} among {} and {}{} ahead {} in {} buckets of {}{} pipeline {} x {} "
      "{} "
      "[{}] recompute {}, {} samples{}",
      layout.data, layout.context.size, static_cast<int>(layout.context.algorithm),
      layout.context.inner, layout.context.window, layout.tensor, layout.tensor_x, layout.tensor_y,
      layout.sequence ? " with sequence" : "", layout.tensor_slices, layout.expert,
      layout.expert_tensor, layout.zero, layout.zero_ranks, layout.zero_parameter_ranks,
      layout.overlap_gather ? "" : " at once", layout.gather_ahead, layout.reduce_dtype,
      layout.bucket_elements, layout.overlap ? " overlapped" : "", layout.pipeline, layout.chunks,
      layout.schedule, layout.split, layout.recompute, layout.samples,
      (layout.packed ? ", packed" : "") +
          (layout.slices > 1 ? fmt::format(", {} slices ({})", layout.slices, layout.slicing)
                             : "") +
          (layout.source ? ", of instruction data" : "") +
          (layout.noise > 0 ? fmt::format(", noise {}", layout.noise) : "") +
          (layout.dropout > 0 ? fmt::format(", dropout {}", layout.dropout) : "") +
          (layout.tune.freezes() ? ", tuned by " + layout.tune.method : ""));
}

plan::Schedule schedule_of(const Layout& layout) {
  return plan::make_schedule(plan::configured_schedule(config_of(layout), layout.microbatches()));
}

plan::ModelPart part_of(const Layout& layout) {
  return {.tensor = {0, layout.tensor},
          .experts = {0, layout.expert},
          .expert_tensor = {0, layout.expert_tensor == 0 ? layout.tensor : layout.expert_tensor},
          .columns = {0, layout.tensor_y}};
}

RunResult run_layout(const model::ModelSpec& spec, const Layout& layout, const dist::World& world) {
  const config::ParallelConfig parallel = config_of(layout);
  const plan::Mesh mesh({.world = layout.ranks(),
                         .tensor = layout.tensor,
                         .context = layout.context.size,
                         .pipeline = layout.pipeline,
                         .expert = layout.expert,
                         .expert_tensor = layout.expert_tensor});
  train::Ranks ranks = train::join_groups(world, mesh, parallel);
  const plan::Stages stages = plan::plan_stages(parallel, spec, layout.microbatches());
  ranks.part.chunks = stages.chunks[static_cast<size_t>(ranks.stages.rank())];
  EXPECT_TRUE(plan::part_problems(spec, ranks.part).empty());
  nn::ParameterSet parameters(spec, layout.dtype, at::kCPU, /*master=*/true, ranks.part,
                              ranks.owners(parallel), &layout.tune);
  parameters.initialize(5);
  draw_adapters(parameters);
  draw_codes(parameters);
  if (ops::Parameter* victim = layout.poisoned.empty() ? nullptr : parameters.find(layout.poisoned);
      victim && ranks.part.tensor.index + 1 == ranks.part.tensor.count &&
      ranks.samples.index == 0) {
    victim->value().view(-1).fill_(std::numeric_limits<double>::quiet_NaN());
  }
  config::OptimConfig optim;
  optim.lr = layout.lr;
  optim.warmup_steps = 0;
  optim.weight_decay = 0.1;
  optim.clip_grad_norm = 0.5;
  // Biases of keys have no gradient at all: a small eps makes steps of the rounding noise in it.
  optim.eps = 1e-5;
  optim::FlatOptimizer optimizer(parameters, optim,
                                 train::gradient_groups(ranks, parameters, parallel));
  auto chunks = train::build_chunks(spec, parameters, ranks);
  train::StepOptions options = train::step_options(stages, parallel, optim, spec, parameters);
  options.dropout = {layout.dropout, layout.dropout, layout.dropout, layout.noise, /*seed=*/7};
  options.means_of_microbatches = layout.means_of_microbatches;
  options.counts_correct = true;
  train::Step step(train::pointers(chunks), parameters, optimizer, options,
                   train::step_ranks(ranks));
  RunResult result;
  const auto samples = [&](int64_t i) { return samples_of(i, ranks, layout, spec); };
  const auto replica_bytes = [&] {
    return ranks.sharing.within.traffic().bytes + ranks.sharing.across.traffic().bytes;
  };
  for (int64_t i = 0; i < kEqualitySteps; ++i) {
    const double before = replica_bytes();
    const auto done = step.run(samples(i));
    result.replica_bytes = replica_bytes() - before;
    result.losses.push_back(done.loss);
    result.norms.push_back(done.gradient_norm);
    result.labels.push_back(done.labels);
    result.correct.push_back(done.correct);
    result.routing = done.routing;
  }
  result.stage = ranks.stages.rank();
  result.peak_units = step.peak_units();
  result.message_bytes = ranks.stages.traffic().bytes;
  result.expert_bytes = ranks.parallel.experts.traffic().bytes;
  for (const dist::Group* group :
       {&ranks.parallel.tensor, &ranks.parallel.tensor_x, &ranks.parallel.tensor_y})
    result.tensor_bytes += group->traffic().bytes;
  const auto evaluation = step.evaluate(samples(kEqualitySteps));
  const auto sums = step.sum({evaluation.loss_sum, evaluation.tokens});
  result.evaluation = sums[0] / sums[1];
  result.memory = optimizer.memory();
  for (size_t u = 0; u < parameters.layout().units().size(); ++u) {
    const auto& unit = parameters.layout().units()[u];
    result.unit_elements[unit.name] = unit.pieces.front().count();
    optimizer.gathering().use({u});
    for (size_t i = unit.first; i < unit.last; ++i) {
      const std::string& name = parameters.entry(i).name;
      result.parameters[name] = parameters.at(i).value().to(at::kDouble).clone();
      result.parts[name] = parameters.part(i);
    }
    optimizer.gathering().let_go({u});
  }
  return result;
}

at::Tensor held_of(at::Tensor whole, const plan::ParameterPart& part) {
  for (size_t axis = 0; axis < part.kept.size(); ++axis) {
    std::vector<at::Tensor> pieces;
    for (const plan::IndexRange& range : part.kept[axis]) {
      pieces.push_back(whole.narrow(static_cast<int64_t>(axis), range.begin, range.count()));
    }
    whole = at::cat(pieces, static_cast<int64_t>(axis));
  }
  return whole;
}

RunResult run_serially(const model::ModelSpec& spec, const Layout& samples) {
  const Layout layout{.samples = samples.samples,
                      .several_lengths = samples.several_lengths,
                      .packed = samples.packed,
                      .dropout = samples.dropout,
                      .noise = samples.noise,
                      .means_of_microbatches = samples.means_of_microbatches,
                      .source = samples.source,
                      .lr = samples.lr,
                      .tune = samples.tune};
  RunResult result;
  // On a thread of its own, which computes alone: these tensors are too small for several.
  dist::run_ranks(1, [&](const dist::World& world) { result = run_layout(spec, layout, world); });
  return result;
}

void expect_equal(const RunResult& run, const RunResult& serial) {
  for (size_t i = 0; i < serial.losses.size(); ++i) {
    EXPECT_NEAR(run.losses[i] / serial.losses[i], 1.0, kTolerance) << "loss of step " << i;
    EXPECT_NEAR(run.norms[i] / serial.norms[i], 1.0, kTolerance) << "gradient norm of step " << i;
    EXPECT_EQ(run.labels[i], serial.labels[i]) << "step " << i;
    EXPECT_EQ(run.correct[i], serial.correct[i]) << "step " << i;
  }
  EXPECT_NEAR(run.evaluation / serial.evaluation, 1.0, kTolerance) << "loss without gradients";
  for (const auto& [name, part] : run.parts) {
    expect_near(run.parameters.at(name), held_of(serial.parameters.at(name), part), name);
  }
}

}  // namespace qianli::testing
