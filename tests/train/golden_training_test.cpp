// Loss, every gradient, and thirty optimizer steps against transformers and PyTorch
// (tools/reference/golden_models.py, golden_training.py: exact answers, computed in float64).
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>

#include "qianli/base/error.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/model/hugging_face.h"
#include "qianli/ops/cross_entropy.h"
#include "qianli/train/step.h"
#include "tests/infer/golden.h"
#include "tests/support/engine_support.h"
#include "tests/support/stored_tensors.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

// A golden model ready to train.
struct Trainable {
  model::ModelSpec spec;
  nn::ParameterSet parameters;
  optim::FlatOptimizer optimizer;
  nn::Decoder decoder;

  Trainable(const std::string& family, at::ScalarType dtype, const config::OptimConfig& config = {})
      : spec(model::load_spec(golden_model_folder(family))),
        parameters(spec, dtype, at::kCPU, /*master=*/true),
        optimizer((checkpoint::load_weights(golden_model_folder(family), parameters), parameters),
                  config),
        decoder(spec, parameters) {}
};

data::Batch batch_of(const at::Tensor& tokens, const at::Tensor& labels) {
  data::Batch batch{.sequences = tokens.size(0), .sequence_length = tokens.size(1)};
  const at::Tensor flat_tokens = tokens.to(at::kLong).contiguous(),
                   flat_labels = labels.to(at::kLong).contiguous();
  for (int64_t i = 0; i < tokens.numel(); ++i) {
    const int64_t label = flat_labels.data_ptr<int64_t>()[i];
    batch.tokens.push_back(flat_tokens.data_ptr<int64_t>()[i]);
    batch.labels.push_back(label < 0 ? 0 : label);
    batch.loss_mask.push_back(label < 0 ? 0.0f : 1.0f);
    batch.positions.push_back(i % batch.sequence_length);
    batch.sample_indices.push_back(i / batch.sequence_length);
  }
  return batch;
}

class GoldenTraining : public ::testing::TestWithParam<std::string> {};

void check_loss_and_gradients(const std::string& family, at::ScalarType dtype, double tolerance) {
  Trainable golden(family, dtype);
  const data::Batch batch =
      batch_of(golden_tensor(family, "tokens"), golden_tensor(family, "labels"));
  const double counted = at::from_blob(const_cast<float*>(batch.loss_mask.data()),
                                       {static_cast<int64_t>(batch.loss_mask.size())}, at::kFloat)
                             .sum()
                             .item<double>();
  const at::Tensor hidden = golden.decoder.forward(train::decoder_input(batch, at::kCPU));
  const at::Tensor mask =
      at::from_blob(const_cast<float*>(batch.loss_mask.data()), {hidden.size(0)}, at::kFloat)
          .to(dtype) /
      counted;
  const at::Tensor labels =
      at::from_blob(const_cast<int64_t*>(batch.labels.data()), {hidden.size(0)}, at::kLong).clone();
  const auto result = golden.decoder.cross_entropy(hidden, labels, mask);
  torch::autograd::backward({result.loss}, {});
  EXPECT_NEAR(result.loss.item<double>() / golden_tensor(family, "loss").item<double>(), 1.0,
              tolerance);
  for (size_t i = 0; i < golden.parameters.size(); ++i) {
    for (const auto& piece : golden.parameters.entry(i).hugging_face) {
      const at::Tensor expected = golden_tensor(family, "grad." + piece.name);
      expect_close(own_rows(piece, golden.parameters.at(i).grad()), foreign_rows(piece, expected),
                   tolerance, piece.name);
    }
  }
}

TEST_P(GoldenTraining, loss_and_every_gradient_equal_transformers) {
  {
    SCOPED_TRACE("float32");
    check_loss_and_gradients(GetParam(), at::kFloat, 1e-5);
  }
  SCOPED_TRACE("float64");  // the golden values are stored as float32
  check_loss_and_gradients(GetParam(), at::kDouble, 2e-7);
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenTraining, ::testing::ValuesIn(golden_model_names()),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

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

class GoldenRun : public ::testing::TestWithParam<std::string> {};

void follow_golden_run(const std::string& family, at::ScalarType dtype, double tolerance) {
  const auto file = source_path("tests/golden/training") / (family + ".safetensors");
  const at::Tensor tokens = read_tensor(file, "tokens").to(at::kLong);
  const at::Tensor loss = read_tensor(file, "loss"), norm = read_tensor(file, "grad_norm"),
                   lr = read_tensor(file, "lr");
  const config::OptimConfig config = golden_optimizer();
  Trainable golden(family, dtype, config);
  train::Step step({&golden.decoder}, golden.parameters, golden.optimizer, {.optim = config});
  for (int64_t i = 0; i < tokens.size(0); ++i) {
    std::vector<data::Batch> microbatches;
    for (int64_t m = 0; m < 2; ++m) {
      const at::Tensor rows = tokens[i].narrow(0, 2 * m, 2);
      microbatches.push_back(batch_of(rows.narrow(1, 0, 32), rows.narrow(1, 1, 32)));
    }
    const auto result = step.run(microbatches);
    ASSERT_NEAR(result.loss / loss[i].item<double>(), 1.0, tolerance) << "step " << i;
    ASSERT_NEAR(result.gradient_norm / norm[i].item<double>(), 1.0, 10 * tolerance) << "step " << i;
    ASSERT_NEAR(result.lr, lr[i].item<double>(), 1e-12) << "step " << i;
  }
}

TEST_P(GoldenRun, thirty_steps_follow_pytorch) {
  {
    SCOPED_TRACE("float32");
    follow_golden_run(GetParam(), at::kFloat, 1e-4);
  }
  SCOPED_TRACE("float64");
  follow_golden_run(GetParam(), at::kDouble, 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenRun, ::testing::Values("llama2", "gpt2", "qwen3"));

TEST(Step, names_the_first_tensor_that_is_not_finite) {
  Trainable golden("llama2", at::kFloat);
  golden.parameters.at("decoder.layers.1.mlp.linear_fc1.weight").value().fill_(1e30);
  train::Step step({&golden.decoder}, golden.parameters, golden.optimizer, {});
  const data::Batch batch =
      batch_of(golden_tensor("llama2", "tokens"), golden_tensor("llama2", "labels"));
  const std::vector<data::Batch> microbatches{batch};
  try {
    step.run(microbatches);
    FAIL() << "expected NonFiniteError";
  } catch (const NonFiniteError& error) {
    EXPECT_EQ(error.code(), ExitCode::kNonFinite);
    EXPECT_NE(std::string(error.what()).find("decoder.layers.1.mlp"), std::string::npos)
        << error.what();
    EXPECT_NE(std::string(error.what()).find("step 1"), std::string::npos) << error.what();
  }
}

TEST(Step, microbatches_give_the_gradient_of_the_whole_batch) {
  const at::Tensor tokens = golden_tensor("llama2", "tokens"),
                   labels = golden_tensor("llama2", "labels");
  std::vector<double> losses, norms;
  for (const bool split : {false, true}) {
    Trainable golden("llama2", at::kDouble);
    train::Step step({&golden.decoder}, golden.parameters, golden.optimizer,
                     {.optim = golden_optimizer()});
    std::vector<data::Batch> microbatches;
    if (split) {
      for (int64_t row = 0; row < 2; ++row)
        microbatches.push_back(batch_of(tokens.narrow(0, row, 1), labels.narrow(0, row, 1)));
    } else {
      microbatches.push_back(batch_of(tokens, labels));
    }
    const auto result = step.run(microbatches);
    losses.push_back(result.loss);
    norms.push_back(result.gradient_norm);
  }
  // The rows count different numbers of tokens: a mean of means would differ.
  EXPECT_NEAR(losses[0], losses[1], 1e-12);
  EXPECT_NEAR(norms[0], norms[1], 1e-12 * norms[0]);
}

}  // namespace
}  // namespace qianli::testing
