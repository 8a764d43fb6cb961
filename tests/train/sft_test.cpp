// Supervised fine-tuning: the losses of transformers, step by step; packed as one by one; equal in
// every layout.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/checkpoint/checkpoint.h"
#include "qianli/data/instruction_batches.h"
#include "qianli/dist/rank_threads.h"
#include "qianli/model/hugging_face.h"
#include "qianli/ops/noise.h"
#include "qianli/train/step.h"
#include "tests/data/instruction_samples_file.h"
#include "tests/infer/golden.h"
#include "tests/support/engine_support.h"
#include "tests/support/stored_tensors.h"
#include "tests/support/test_paths.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

using data::InstructionBatches;
using data::InstructionBatchOptions;
using data::testing_support::open_samples;
using data::testing_support::StoredSample;
using data::testing_support::write_samples;

std::filesystem::path golden_folder(const std::string& model) {
  return source_path("tests/golden/sft") / model;
}

// The samples of tools/reference/golden_sft.py as stored instruction data.
std::vector<StoredSample> golden_samples(const std::string& model) {
  const auto file = golden_folder(model) / "sft.safetensors";
  const at::Tensor ids = read_tensor(file, "ids"), labels = read_tensor(file, "labels"),
                   lengths = read_tensor(file, "lengths");
  std::vector<StoredSample> samples;
  int64_t begin = 0;
  for (int64_t i = 0; i < lengths.size(0); ++i) {
    const int64_t end = begin + lengths[i].item<int64_t>();
    const auto part = [&](const at::Tensor& of) {
      return std::vector<int32_t>(of.data_ptr<int32_t>() + begin, of.data_ptr<int32_t>() + end);
    };
    samples.push_back({part(ids), part(labels)});
    begin = end;
  }
  return samples;
}

config::OptimConfig golden_optimizer() {
  config::OptimConfig config;
  config.lr = 5e-3;
  config.min_lr = 0;
  config.lr_schedule = "cosine";
  config.warmup_steps = 5;
  config.decay_steps = 30;
  config.weight_decay = 0.1;
  config.betas = {0.9, 0.999};
  config.clip_grad_norm = 1.0;
  return config;
}

class SftGolden : public ::testing::TestWithParam<std::string> {};

void follow_transformers(const std::string& name, at::ScalarType dtype, double tolerance) {
  const TemporaryFolder folder;
  write_samples(folder / "data", golden_samples(name));
  const InstructionBatches batches(
      open_samples(folder / "data"), {.global_batch_size = 4, .micro_batch_size = 2},
      {.rows = {.capacity = 64, .shuffle = false}, .wanted = {.epochs = 1}, .vocab_size = 97});
  ASSERT_EQ(batches.num_steps(), 30);
  const model::ModelSpec spec = model::load_spec(golden_folder(name));
  nn::ParameterSet parameters(spec, dtype, at::kCPU, /*master=*/true);
  checkpoint::load_weights(golden_folder(name), parameters);
  const config::OptimConfig config = golden_optimizer();
  optim::FlatOptimizer optimizer(parameters, config);
  nn::Decoder decoder(spec, parameters);
  train::Step step({&decoder}, parameters, optimizer, {.optim = config});
  const auto file = golden_folder(name) / "sft.safetensors";
  const at::Tensor loss = read_tensor(file, "loss"), norm = read_tensor(file, "grad_norm"),
                   lr = read_tensor(file, "lr");
  for (int64_t i = 0; i < batches.num_steps(); ++i) {
    const auto result = step.run(batches.microbatches(i));
    ASSERT_NEAR(result.loss / loss[i].item<double>(), 1.0, tolerance) << "step " << i;
    ASSERT_NEAR(result.gradient_norm / norm[i].item<double>(), 1.0, 10 * tolerance) << "step " << i;
    ASSERT_NEAR(result.lr, lr[i].item<double>(), 1e-12) << "step " << i;
  }
}

TEST_P(SftGolden, thirty_steps_follow_transformers) {
  {
    SCOPED_TRACE("float32");
    follow_transformers(GetParam(), at::kFloat, 1e-5);
  }
  SCOPED_TRACE("float64");
  follow_transformers(GetParam(), at::kDouble, 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Models, SftGolden,
                         ::testing::Values("llama", "qwen3_moe", "deepseek_v2", "gpt_oss"),
                         [](const auto& info) { return info.param; });

TEST(Sft, counts_the_labels_that_are_the_likeliest_tokens) {
  const TemporaryFolder folder;
  write_samples(folder / "data", golden_samples("llama"));
  const InstructionBatches batches(
      open_samples(folder / "data"), {.global_batch_size = 40, .micro_batch_size = 40},
      {.rows = {.capacity = 64, .shuffle = false}, .wanted = {.epochs = 1}});
  const model::ModelSpec spec = model::load_spec(golden_folder("llama"));
  nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, /*master=*/true);
  checkpoint::load_weights(golden_folder("llama"), parameters);
  optim::FlatOptimizer optimizer(parameters, golden_optimizer());
  nn::Decoder decoder(spec, parameters);
  train::Step step({&decoder}, parameters, optimizer,
                   {.optim = golden_optimizer(), .counts_correct = true});
  const data::Batch batch = batches.microbatches(0).at(0);
  double labels = 0, correct = 0;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor best =
        decoder.logits(decoder.forward(train::decoder_input(batch, at::kCPU))).argmax(1);
    for (size_t i = 0; i < batch.labels.size(); ++i) {
      if (batch.loss_mask[i] == 0) continue;
      labels += 1;
      correct += best[static_cast<int64_t>(i)].item<int64_t>() == batch.labels[i] ? 1 : 0;
    }
  }
  const auto evaluation = step.evaluate(batches.microbatches(0));
  EXPECT_EQ(evaluation.tokens, labels);
  EXPECT_EQ(evaluation.correct, correct);
  const auto result = step.run(batches.microbatches(0));
  EXPECT_EQ(result.labels, labels);
  EXPECT_EQ(result.correct, correct);
  EXPECT_GT(correct, 0);
}

TEST(Noise, is_uniform_and_a_function_of_place) {
  const at::Tensor origins = at::arange(3, 203, at::kLong);
  const at::Tensor all = ops::uniform_noise(5, origins, 0, 50);
  EXPECT_GE(all.min().item<double>(), -1.0);
  EXPECT_LT(all.max().item<double>(), 1.0);
  EXPECT_NEAR(all.mean().item<double>(), 0.0, 0.02);  // 3.5 standard errors
  EXPECT_NEAR(all.square().mean().item<double>(), 1.0 / 3, 0.01);
  EXPECT_TRUE(at::equal(ops::uniform_noise(5, origins.narrow(0, 7, 9), 13, 22),
                        all.narrow(0, 7, 9).narrow(1, 13, 22)));
  EXPECT_FALSE(at::equal(ops::uniform_noise(6, origins, 0, 50), all));
}

// 48 samples of 4 to 15 tokens below 40, of which some part is learnt.
std::vector<StoredSample> made_up_samples() {
  std::vector<StoredSample> samples;
  for (uint32_t i = 0; i < 48; ++i) {
    auto& sample = samples.emplace_back();
    const uint32_t length = 4 + i * 5 % 12, asked = 1 + i % 3;
    for (uint32_t place = 0; place < length; ++place) {
      const auto id = static_cast<int32_t>((i * 31 + place * (7 + i % 5) + 3) % 40);
      sample.ids.push_back(id);
      sample.labels.push_back(place < asked ? -100 : id);
    }
  }
  // A microbatch without a label.
  std::ranges::fill(samples[5].labels, -100);
  return samples;
}

class SftRun : public ::testing::TestWithParam<std::string> {
 protected:
  SftRun() {
    write_samples(folder_ / "data", made_up_samples());
    samples_ = open_samples(folder_ / "data");
  }
  // Steps of 12 samples in the order in which they are stored, or of rows packed of them.
  auto source(data::RowPacking packing = data::RowPacking::kNone, int64_t budget = 0) const {
    const InstructionBatchOptions options{
        .rows = {.packing = packing, .capacity = 24, .shuffle = false},
        .wanted = {.epochs = 1},
        .micro_batch_tokens = budget};
    return [samples = samples_, options](const data::BatchLayout& layout, int64_t step) {
      return InstructionBatches(samples, layout, options).microbatches(step);
    };
  }
  void expect_layouts(std::vector<Layout> layouts, const Layout& common) {
    const model::ModelSpec spec = tiny_model(GetParam());
    const RunResult serial = run_serially(spec, common);
    for (Layout& layout : layouts) {
      layout.samples = common.samples;
      layout.source = common.source;
      layout.noise = common.noise;
      layout.means_of_microbatches = common.means_of_microbatches;
      SCOPED_TRACE(text_of(layout));
      dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
        expect_equal(run_layout(spec, layout, world), serial);
      });
    }
  }

  TemporaryFolder folder_;
  std::shared_ptr<const data::InstructionDataset> samples_;
};

const Layout kSome[] = {{.tensor = 2, .sequence = true}, {.pipeline = 2},
                        {.context = {.size = 2}},        {.data = 2},
                        {.data = 2, .zero = 1},          {.data = 2, .zero = 3}};

TEST_P(SftRun, equals_the_serial_run_in_every_layout) {
  expect_layouts({std::begin(kSome), std::end(kSome)}, {.source = source()});
}

TEST_P(SftRun, means_of_microbatches_are_the_same_in_every_layout) {
  const Layout means{.means_of_microbatches = true, .source = source()};
  expect_layouts({std::begin(kSome), std::end(kSome)}, means);
  const model::ModelSpec spec = tiny_model(GetParam());
  EXPECT_NE(run_serially(spec, means).losses, run_serially(spec, {.source = source()}).losses);
}

TEST_P(SftRun, noise_is_the_same_in_every_layout) {
  const Layout noisy{.noise = 5, .source = source()};
  expect_layouts({{.tensor = 2, .sequence = true},
                  {.pipeline = 2},
                  {.context = {.size = 2}},
                  {.data = 2, .rows = 3}},
                 noisy);
  const model::ModelSpec spec = tiny_model(GetParam());
  const RunResult with = run_serially(spec, noisy),
                  without = run_serially(spec, {.source = source()});
  EXPECT_NE(with.losses, without.losses);
  // The same order: noise is of training alone, and small.
  EXPECT_NEAR(with.losses[0] / without.losses[0], 1.0, 0.2);
}

TEST_P(SftRun, the_mean_of_means_counts_a_microbatch_without_labels_as_zero) {
  const model::ModelSpec spec = tiny_model(GetParam());
  nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, /*master=*/true);
  parameters.initialize(5);
  optim::FlatOptimizer optimizer(parameters, {});
  nn::Decoder decoder(spec, parameters);
  train::Step step({&decoder}, parameters, optimizer, {.means_of_microbatches = true});
  const auto microbatches = source()({.global_batch_size = 12, .micro_batch_size = 1}, 0);
  double sum = 0;
  int64_t without = 0;
  for (const data::Batch& batch : microbatches) {
    const auto one = step.evaluate({&batch, 1});
    if (one.tokens == 0)
      ++without;
    else
      sum += one.loss_sum / one.tokens;
  }
  EXPECT_EQ(without, 1);
  EXPECT_NEAR(step.run(microbatches).loss, sum / 12, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Models, SftRun, ::testing::Values("llama"),
                         [](const auto& info) { return info.param; });

class SftPacking : public SftRun {
 protected:
  // The same samples in a step, in microbatches of 1, 3 and 12, and by a budget of tokens.
  void expect_same_learning(const model::ModelSpec& spec, const config::TuneConfig& tune) {
    const RunResult serial = run_serially(spec, {.source = source(), .tune = tune});
    for (Layout layout : {Layout{.rows = 3}, Layout{.rows = 12}}) {
      layout.source = source();
      layout.tune = tune;
      SCOPED_TRACE(text_of(layout));
      dist::run_ranks(1, [&](const dist::World& world) {
        expect_equal(run_layout(spec, layout, world), serial);
      });
    }
    dist::run_ranks(2, [&](const dist::World& world) {
      const Layout budget{.data = 2, .source = source(data::RowPacking::kNone, 32), .tune = tune};
      expect_equal(run_layout(spec, budget, world), serial);
    });
  }
};

// A model without balancing losses, which look at microbatches.
TEST_P(SftPacking, packed_samples_learn_what_single_ones_do) {
  model::ModelSpec spec = tiny_model(GetParam());
  if (spec.moe) spec.moe->aux_loss_coeff = spec.moe->sequence_aux_loss_coeff = 0;
  {
    SCOPED_TRACE("all weights");
    expect_same_learning(spec, {});
  }
  SCOPED_TRACE("adapters");
  expect_same_learning(spec, {.method = "lora", .r = 3});
}

INSTANTIATE_TEST_SUITE_P(Models, SftPacking, ::testing::Values("llama", "qwen3_moe", "deepseek_v3"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qianli::testing
