// Adapters of low rank against PEFT (tools/reference/golden_lora.py: exact answers in float64).
#include <gtest/gtest.h>

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>

#include <map>

#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/convert/adapter/trained.h"
#include "qianli/convert/hugging_face/tensors.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/tuned_table.h"
#include "qianli/optim/flat_optimizer.h"
#include "qianli/train/step.h"
#include "qianli/tune/adapter.h"
#include "tests/support/engine_support.h"
#include "tests/support/stored_tensors.h"
#include "tests/support/test_paths.h"
#include "tests/tune/golden_adapters.h"

namespace qianli::testing {
namespace {

namespace fs = std::filesystem;

at::Tensor golden_of(const std::string& name, const std::string& tensor) {
  return read_tensor(adapter_folder(name) / "run.safetensors", tensor);
}

// A golden model with a golden adapter.
struct Tuned {
  model::ModelSpec spec;
  config::TuneConfig tune;
  nn::ParameterSet parameters;
  nn::Decoder decoder;

  Tuned(const std::string& name, at::ScalarType dtype, bool master)
      : spec(model::load_spec(base_of(name))),
        tune(tune::tuning_of(adapter_folder(name), spec)),
        parameters(spec, dtype, at::kCPU, master, {}, {}, &tune),
        decoder((fill(name), spec), parameters) {}

  void fill(const std::string& name) {
    checkpoint::load_weights(base_of(name), parameters);
    tune::load_adapter(adapter_folder(name), spec, parameters);
  }
};

data::Batch batch_of(const at::Tensor& tokens) {  // [sequences, length + 1]
  data::Batch batch{.sequences = tokens.size(0), .sequence_length = tokens.size(1) - 1};
  for (int64_t s = 0; s < tokens.size(0); ++s) {
    for (int64_t i = 0; i < batch.sequence_length; ++i) {
      batch.tokens.push_back(tokens[s][i].item<int64_t>());
      batch.labels.push_back(tokens[s][i + 1].item<int64_t>());
      batch.loss_mask.push_back(1.0F);
      batch.positions.push_back(i);
    }
    batch.sample_indices.push_back(s);
  }
  return batch;
}

at::Tensor logits_of(nn::Decoder& decoder, const at::Tensor& prompt) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> rows;
  data::Batch batch = batch_of(at::cat({prompt, prompt.narrow(1, 0, 1)}, 1).to(at::kLong));
  return decoder.logits(decoder.forward(train::decoder_input(batch, at::kCPU)))
      .view({prompt.size(0), prompt.size(1), -1});
}

config::OptimConfig golden_optimizer() {
  config::OptimConfig config;
  config.lr = 1e-2;
  config.min_lr = 1e-3;
  config.lr_schedule = "cosine";
  config.warmup_steps = 5;
  config.decay_steps = 30;
  config.weight_decay = 0.1;
  config.betas = {0.9, 0.95};
  config.clip_grad_norm = 1.0;
  return config;
}

class GoldenAdapter : public ::testing::TestWithParam<std::string> {};

void expect_logits(const std::string& name) {
  Tuned tuned(name, at::kDouble, /*master=*/false);
  const at::Tensor prompt = golden_of(name, "prompt");
  expect_close(logits_of(tuned.decoder, prompt), golden_of(name, "logits"), 1e-9, "beside");
  const auto merged = convert::open_model(base_of(name), {.adapter = adapter_folder(name)});
  nn::ParameterSet parameters(tuned.spec, at::kDouble, at::kCPU, /*master=*/false);
  checkpoint::load_weights(*merged, parameters);
  nn::Decoder decoder(tuned.spec, parameters);
  expect_close(logits_of(decoder, prompt), golden_of(name, "logits"), 1e-5, "merged");
}

TEST_P(GoldenAdapter, logits_equal_peft_merged_or_not) { expect_logits(GetParam()); }

void follow(const std::string& name, at::ScalarType dtype, double tolerance) {
  Tuned tuned(name, dtype, /*master=*/true);
  std::map<std::string, at::Tensor> frozen;
  for (size_t i = 0; i < tuned.parameters.size(); ++i) {
    if (!tuned.parameters.is_trained(i))
      frozen[tuned.parameters.entry(i).name] = tuned.parameters.at(i).value().clone();
  }
  ASSERT_FALSE(frozen.empty());
  const config::OptimConfig config = golden_optimizer();
  optim::FlatOptimizer optimizer(tuned.parameters, config);
  train::Step step({&tuned.decoder}, tuned.parameters, optimizer, {.optim = config});
  const at::Tensor tokens = golden_of(name, "tokens").to(at::kLong);
  const at::Tensor loss = golden_of(name, "loss"), norm = golden_of(name, "grad_norm");
  for (int64_t i = 0; i < tokens.size(0); ++i) {
    const std::vector<data::Batch> microbatches{batch_of(tokens[i].narrow(0, 0, 2)),
                                                batch_of(tokens[i].narrow(0, 2, 2))};
    const auto result = step.run(microbatches);
    ASSERT_NEAR(result.loss / loss[i].item<double>(), 1.0, tolerance) << "step " << i;
    ASSERT_NEAR(result.gradient_norm / norm[i].item<double>(), 1.0, 10 * tolerance) << "step " << i;
  }
  int64_t compared = 0;
  for (size_t i = 0; i < tuned.parameters.size(); ++i) {
    if (!tuned.parameters.is_trained(i)) continue;
    const auto& entry = tuned.parameters.entry(i);
    for (model::ForeignPiece piece : entry.hugging_face) {
      if (!model::is_adapter(entry.name)) piece.name = "base_model.model." + piece.name;
      const at::Tensor expected = golden_of(name, "final." + piece.name);
      expect_close(own_rows(piece, tuned.parameters.exact(i)), foreign_rows(piece, expected),
                   100 * tolerance, piece.name);
      ++compared;
    }
  }
  EXPECT_GT(compared, 3);
  for (const auto& [parameter, value] : frozen)
    EXPECT_TRUE(at::equal(tuned.parameters.at(parameter).value(), value)) << parameter;
}

TEST_P(GoldenAdapter, thirty_steps_follow_peft) {
  {
    SCOPED_TRACE("float32");
    follow(GetParam(), at::kFloat, 1e-5);
  }
  SCOPED_TRACE("float64");
  follow(GetParam(), at::kDouble, 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenAdapter,
                         ::testing::Values("llama2", "llama2_some", "llama2_dora", "gpt2", "qwen3",
                                           "qwen3_moe", "deepseek_v2", "gpt_oss", "gpt_oss_down"));

// Gate and up of an expert have one A there, which become two that are equal.
TEST(Adapter, ExpertsThatPeftHasInOneTensorAreReadOneByOne) { expect_logits("qwen3_moe_stacked"); }

TEST(Adapter, ExpertsOfOneTensorAreWrittenAsPeftHasThem) {
  for (const std::string name : {"gpt_oss", "gpt_oss_down"}) {
    SCOPED_TRACE(name);
    const fs::path folder = adapter_folder(name);
    const model::ModelSpec spec = model::load_spec(base_of(name));
    const auto adapter = convert::open_peft_adapter(folder, model::parameter_table(spec));
    convert::AdapterSource read{
        .model = convert::as_trained(adapter.tensors, folder, spec, tune::tuning_of(folder, spec)),
        .config = convert::read_adapter_json(folder)};
    read.tensors = convert::hugging_face_tensors(read.model->table);
    const TemporaryFolder place;
    convert::write_peft_adapter(read, place / "out", {}, {});
    const auto expected = convert::open_adapter_tensors(folder).source;
    const auto written = convert::open_adapter_tensors(place / "out").source;
    ASSERT_EQ(written->tensors().size(), expected->tensors().size());
    for (const auto& tensor : expected->tensors()) {
      const auto& own = written->at(tensor.name);
      EXPECT_EQ(own.shape, tensor.shape) << tensor.name;
      EXPECT_EQ(convert::float_values(*written, own), convert::float_values(*expected, tensor))
          << tensor.name;
    }
    EXPECT_EQ(convert::verify_peft_adapter(read, place / "out").parameters,
              read.model->table.size());
  }
}

// Bytes of gradients, masters and states are those of what is trained.
TEST(Adapter, FrozenWeightsHaveValuesOnly) {
  Tuned tuned("llama2", at::kBFloat16, /*master=*/true);
  optim::FlatOptimizer optimizer(tuned.parameters, {});
  const int64_t trained = tuned.parameters.layout().trained_size(),
                all = tuned.parameters.flat_size();
  EXPECT_LT(3 * trained, all);
  const optim::OptimizerMemory memory = optimizer.memory();
  EXPECT_EQ(memory.parameters, 2 * all + 4 * trained);
  EXPECT_EQ(memory.gradients, 4 * trained);
  EXPECT_EQ(memory.states, 8 * trained);
}

// What is kept in few bits computes as the numbers that it stands for.
TEST(Adapter, QuantisedWeightsAreTheirNumbers) {
  for (const std::string code : {"nf4", "int8"}) {
    for (const bool nested : {false, true}) {
      SCOPED_TRACE(code + (nested ? " nested" : ""));
      const model::ModelSpec spec = model::load_spec(golden_model_folder("llama2"));
      config::TuneConfig tune = tune::tuning_of(adapter_folder("llama2"), spec);
      const config::TuneConfig plain = tune;
      tune.quantization = code;
      tune.double_quant = nested;
      nn::ParameterSet few(spec, at::kFloat, at::kCPU, /*master=*/true, {}, {}, &tune);
      nn::ParameterSet numbers(spec, at::kFloat, at::kCPU, /*master=*/true, {}, {}, &plain);
      int64_t quantized = 0;
      for (nn::ParameterSet* parameters : {&few, &numbers}) {
        checkpoint::load_weights(golden_model_folder("llama2"), *parameters);
        tune::load_adapter(adapter_folder("llama2"), spec, *parameters);
      }
      for (size_t i = 0; i < few.size(); ++i) {
        quantized += few.part(i).quantized ? few.part(i).elements() : 0;
        if (few.part(i).quantized) numbers.write(i, 0, few.at(i).value());
      }
      ASSERT_GT(quantized, 10'000);
      EXPECT_LT(few.kept_bytes(), numbers.kept_bytes() - 2 * quantized);
      std::vector<double> losses;
      for (nn::ParameterSet* parameters : {&few, &numbers}) {
        optim::FlatOptimizer optimizer(*parameters, golden_optimizer());
        nn::Decoder decoder(spec, *parameters);
        train::Step step({&decoder}, *parameters, optimizer, {.optim = golden_optimizer()});
        const std::vector<data::Batch> batches{
            batch_of(golden_of("llama2", "tokens")[0].to(at::kLong))};
        for (int64_t i = 0; i < 3; ++i) losses.push_back(step.run(batches).loss);
      }
      EXPECT_EQ(losses[1], losses[4]);
      EXPECT_EQ(losses[2], losses[5]);
      EXPECT_LT(losses[2], losses[1]);
    }
  }
}

// Below the lowest adapter nothing is recorded.
TEST(Adapter, NothingGoesBackBelowTheLowestOne) {
  const model::ModelSpec spec = model::load_spec(golden_model_folder("llama2"));
  const config::TuneConfig tune{.method = "lora", .layers = "1"};
  nn::ParameterSet parameters(spec, at::kFloat, at::kCPU, /*master=*/true, {}, {}, &tune);
  parameters.initialize(1);
  optim::FlatOptimizer optimizer(parameters, {});
  nn::Decoder decoder(spec, parameters);
  std::map<std::string, bool> recorded;
  decoder.observe([&](const std::string& name, const at::Tensor& value) {
    recorded[name] = value.requires_grad();
  });
  decoder.forward(
      train::decoder_input(batch_of(golden_of("llama2", "tokens")[0].to(at::kLong)), at::kCPU));
  EXPECT_FALSE(recorded.at("decoder.layers.0.mlp"));
  EXPECT_TRUE(recorded.at("decoder.layers.1.self_attention"));
}

}  // namespace
}  // namespace qianli::testing
