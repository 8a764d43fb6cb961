// LU-LoRA: adapters of the first layers learn by a local rule, those above by gradients.
#include <gtest/gtest.h>

#include <ATen/ops/rsqrt.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <map>

#include "qianli/base/error.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/dist/rank_threads.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/tuned_table.h"
#include "qianli/ops/local_low_rank.h"
#include "qianli/optim/flat_optimizer.h"
#include "qianli/train/step.h"
#include "tests/infer/golden.h"
#include "tests/support/engine_support.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

config::TuneConfig local_until(int64_t layer) {
  config::TuneConfig tune{.method = "lora", .r = 3, .alpha = 6};
  tune.lu_lora_final_layer_index = layer;
  tune.lu_lora_lr = 1e-2;
  tune.lu_lora_lr_ratio = 2;
  return tune;
}

data::Batch batch_of(std::vector<int64_t> tokens) {
  data::Batch batch{.sequences = 1, .sequence_length = std::ssize(tokens) - 1};
  for (int64_t i = 0; i < batch.sequence_length; ++i) {
    batch.tokens.push_back(tokens[static_cast<size_t>(i)]);
    batch.labels.push_back(tokens[static_cast<size_t>(i) + 1]);
    batch.loss_mask.push_back(1.0F);
    batch.positions.push_back(i);
  }
  return batch;
}

struct Training {
  model::ModelSpec spec;
  config::TuneConfig tune;
  nn::ParameterSet parameters;
  optim::FlatOptimizer optimizer;
  nn::Decoder decoder;
  train::Step step;

  static config::OptimConfig optim() {
    config::OptimConfig optim;
    optim.lr = 1e-3;
    optim.lr_schedule = "constant";
    optim.warmup_steps = 0;
    optim.clip_grad_norm = 0.01;  // which the local rule does not see
    return optim;
  }
  Training(config::TuneConfig how, at::ScalarType dtype)
      : spec(model::load_spec(golden_model_folder("llama2"))),
        tune(std::move(how)),
        parameters(spec, dtype, at::kCPU, /*master=*/true, {}, {}, &tune),
        optimizer((parameters.initialize(3),
                   checkpoint::load_weights(golden_model_folder("llama2"), parameters), parameters),
                  optim()),
        decoder(spec, parameters),
        step({&decoder}, parameters, optimizer, {.optim = optim()}) {}
  at::Tensor value(const std::string& name) {
    return parameters.exact(parameters.index_of(name)).clone();
  }
};

const std::vector<data::Batch> kMicrobatches = {batch_of({5, 9, 33, 2, 71, 8}),
                                                batch_of({60, 4, 4, 19, 50, 11})};
constexpr const char* kQkv = "decoder.layers.0.self_attention.linear_qkv";

TEST(LuLora, the_first_layer_moves_by_its_rule) {
  Training run(local_until(0), at::kDouble);
  const std::string down = std::string(kQkv) + ".lora_A", up = std::string(kQkv) + ".lora_B";
  const at::Tensor a = run.value(down), b = run.value(up);
  EXPECT_NEAR(b.square().mean().sqrt().item<double>(), 1e-4, 2e-5);
  // What comes in is the embedding behind the norm: plain_x. Three modules: q, k and v.
  at::Tensor change_a = at::zeros_like(a), change_b = at::zeros_like(b);
  for (const data::Batch& batch : kMicrobatches) {
    const at::Tensor embedded = run.value("embedding.word_embeddings.weight")
                                    .index_select(0, at::tensor(batch.tokens, at::kLong));
    const at::Tensor x =
        embedded * at::rsqrt(embedded.square().mean(1, /*keepdim=*/true) + run.spec.norm_eps) *
        run.value("decoder.layers.0.input_layernorm.weight");
    int64_t row = 0;
    for (const int64_t module : {0, 1, 2}) {
      const int64_t heads = module == 0 ? run.spec.num_attention_heads : run.spec.num_query_groups;
      const int64_t rows = heads * run.spec.head_dim;
      const at::Tensor own_a = a.narrow(0, 3 * module, 3), own_b = b.narrow(0, row, rows);
      const at::Tensor z = run.tune.scale() * x.matmul(own_a.t());
      change_a.narrow(0, 3 * module, 3).add_(ops::oja_change(own_a, x, z));
      change_b.narrow(0, row, rows).add_(ops::oja_change(own_b, z, z.matmul(own_b.t())));
      row += rows;
    }
  }
  const at::Tensor above = run.value("decoder.layers.1.self_attention.linear_qkv.lora_B");
  run.step.run(kMicrobatches);
  expect_close(run.value(down), a - 1e-2 * change_a / 2, 1e-12, "A");
  expect_close(run.value(up), b - 2e-2 * change_b / 2, 1e-12, "B");
  EXPECT_GT(relative_error(run.value("decoder.layers.1.self_attention.linear_qkv.lora_B"), above),
            5e-4);
}

// In bfloat16 the float32 master moves, by steps that bfloat16 would lose.
TEST(LuLora, small_steps_are_kept) {
  config::TuneConfig tune = local_until(0);
  tune.lu_lora_lr = 1e-6;
  Training run(tune, at::kBFloat16);
  const std::string down = std::string(kQkv) + ".lora_A";
  const at::Tensor before = run.value(down);
  run.step.run(kMicrobatches);
  const double moved = (run.value(down) - before).abs().max().item<double>();
  EXPECT_GT(moved, 1e-7);
  EXPECT_LT(moved, 2e-6);
}

TEST(LuLora, nothing_goes_back_through_its_layers) {
  Training run(local_until(0), at::kFloat);
  std::map<std::string, bool> recorded;
  run.decoder.observe([&](const std::string& name, const at::Tensor& value) {
    recorded[name] = value.requires_grad();
  });
  run.decoder.forward(train::decoder_input(kMicrobatches[0], at::kCPU));
  EXPECT_FALSE(recorded.at("decoder.layers.0.mlp"));
  EXPECT_TRUE(recorded.at("decoder.layers.1.self_attention"));
}

// The norm is that of what learns by gradients: with adapters of the upper layer alone, on the same
// activations, it is the same.
TEST(LuLora, the_gradient_norm_is_of_the_other_layers) {
  Training local(local_until(0), at::kDouble);
  config::TuneConfig tune = local_until(0);
  tune.lu_lora_final_layer_index = {};
  tune.layers = "1";
  Training upper(tune, at::kDouble);
  // Without adapters in the first layer: B is 0 there.
  for (size_t i = 0; i < local.parameters.size(); ++i) {
    const std::string& name = local.parameters.entry(i).name;
    if (name.starts_with("decoder.layers.0.") && name.ends_with(".lora_B"))
      local.parameters.write(i, 0, at::zeros({local.parameters.entry(i).elements()}, at::kDouble));
  }
  const auto with = local.step.run(kMicrobatches), without = upper.step.run(kMicrobatches);
  EXPECT_NEAR(with.loss, without.loss, 1e-12);
  EXPECT_NEAR(with.gradient_norm / without.gradient_norm, 1.0, 1e-12);
}

TEST(LuLora, equals_the_serial_run_in_every_layout) {
  const model::ModelSpec spec = tiny_model("llama");
  config::TuneConfig tune = local_until(1);
  tune.lu_lora_final_layer_index = 1;
  const RunResult serial = run_serially(spec, {.tune = tune});
  for (Layout layout : {Layout{.data = 2}, Layout{.data = 2, .zero = 1},
                        Layout{.data = 2, .zero = 2}, Layout{.data = 3, .zero = 3},
                        Layout{.pipeline = 2}, Layout{.data = 2, .zero = 1, .pipeline = 4},
                        Layout{.pipeline = 2, .chunks = 2, .schedule = "interleaved"},
                        Layout{.data = 2, .zero = 2, .recompute = "full"}}) {
    layout.tune = tune;
    SCOPED_TRACE(text_of(layout));
    dist::run_ranks(layout.ranks(), [&](const dist::World& world) {
      expect_equal(run_layout(spec, layout, world), serial);
    });
  }
}

TEST(LuLora, says_what_it_cannot_do) {
  const model::ModelSpec spec = tiny_model("llama"), experts = tiny_model("qwen3_moe");
  EXPECT_THROW(model::tuned_table(spec, local_until(3)), ConfigError);
  EXPECT_THROW(model::tuned_table(experts, local_until(0)), ConfigError);
  config::TuneConfig attention = local_until(0);
  attention.target_modules = {{"linear_qkv"}};
  EXPECT_NO_THROW(model::tuned_table(experts, attention));
  attention.modules_to_save = {{"word_embeddings"}};
  EXPECT_THROW(model::tuned_table(spec, attention), ConfigError);
}

}  // namespace
}  // namespace qianli::testing
