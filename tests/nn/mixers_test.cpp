// The recurrent mixers against transformers (tests/golden/mixers.safetensors, made by
// tools/reference/golden_mixers.py), packed and token by token.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "qianli/formats/safetensors.h"
#include "qianli/nn/decoder.h"
#include "qianli/nn/gated_delta_net.h"
#include "qianli/nn/kv_cache.h"
#include "qianli/nn/mamba2_mixer.h"
#include "tests/infer/golden.h"
#include "tests/support/engine_support.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

constexpr int64_t kHidden = 20;

model::ModelSpec spec_with(std::vector<model::MixerKind> pattern) {
  model::ModelSpec spec;
  spec.family = "llama";
  spec.num_layers = static_cast<int64_t>(pattern.size());
  spec.hidden_size = kHidden;
  spec.ffn_hidden_size = 24;
  if (std::ranges::find(pattern, model::MixerKind::kAttention) != pattern.end()) {
    spec.num_attention_heads = spec.num_query_groups = 2;
    spec.head_dim = 10;
  }
  spec.vocab_size = 31;
  spec.max_position_embeddings = 128;
  const auto uses = [&](model::MixerKind kind) {
    return std::ranges::find(pattern, kind) != pattern.end();
  };
  if (uses(model::MixerKind::kGatedDeltaNet)) {
    spec.gated_delta_net = model::GatedDeltaNet{
        .num_key_heads = 2, .num_value_heads = 4, .key_head_dim = 8, .value_head_dim = 6};
  }
  if (uses(model::MixerKind::kMamba2)) {
    spec.mamba2 = model::Mamba2{.state_size = 12, .head_dim = 10, .inner_size = 40};
  }
  spec.layer_pattern = std::move(pattern);
  return spec;
}

struct Case {
  std::string name;
  model::MixerKind kind;
  int64_t groups;
  double eps;
};
const Case kCases[] = {{"delta_net", model::MixerKind::kGatedDeltaNet, 1, 1e-6},
                       {"mamba2", model::MixerKind::kMamba2, 1, 1e-5},
                       {"mamba2_groups", model::MixerKind::kMamba2, 2, 1e-5}};

// A layer's mixer with its parameters, and the names of those in the golden file.
struct Mixer {
  Mixer(const Case& c, at::ScalarType dtype) : spec(spec_with({c.kind})) {
    if (spec.mamba2) spec.mamba2->num_groups = c.groups;
    spec.norm_eps = c.eps;
    parameters = std::make_unique<nn::ParameterSet>(spec, dtype, at::kCPU, false);
    parameters->initialize(1);
    const std::string layer = "decoder.layers.0.";
    if (c.kind == model::MixerKind::kMamba2) {
      prefix = layer + "mixer";
      block = std::make_unique<nn::Mamba2Mixer>(spec, *parameters, prefix, 0);
      names = {"A_log",          "D",           "conv1d.bias",    "conv1d.weight", "dt_bias",
               "in_proj.weight", "norm.weight", "out_proj.weight"};
    } else {
      prefix = layer + "self_attention";
      block = std::make_unique<nn::GatedDeltaNet>(spec, *parameters, prefix, 0);
      names = {"A_log",          "conv1d.weight",   "dt_bias",
               "in_proj.weight", "out_norm.weight", "out_proj.weight"};
    }
  }

  ops::Parameter& at(const std::string& name) { return parameters->at(prefix + "." + name); }

  at::Tensor run(const at::Tensor& x, const std::vector<int64_t>& starts,
                 nn::KvCache* cache = nullptr) {
    const nn::DecoderInput input{
        .tokens = at::zeros({x.size(0)}, at::kLong), .segment_starts = starts, .cache = cache};
    nn::RotaryTables tables(spec, x);
    const nn::Observer observer;
    const nn::Parallel alone;
    nn::ForwardPass pass{.input = input, .rotary = tables, .observer = observer, .parallel = alone};
    const nn::BlockInput given(x, pass);
    return block->forward(given, pass).part(alone);
  }

  model::ModelSpec spec;
  std::string prefix;
  std::unique_ptr<nn::ParameterSet> parameters;
  std::unique_ptr<nn::Block> block;
  std::vector<std::string> names;
};

// A parameter's tensor in the golden file, in our layout: `what` is weight or grad.
at::Tensor golden(const Case& c, const std::string& what, const std::string& name) {
  const auto file = source_path("tests/golden/mixers.safetensors");
  const auto read = [&](const std::string& tensor) {
    return read_tensor(file, c.name + "." + (what.empty() ? tensor : what + "." + tensor));
  };
  if (c.kind == model::MixerKind::kGatedDeltaNet) {
    if (name == "in_proj.weight") {
      return at::cat({read("in_proj_qkvz.weight"), read("in_proj_ba.weight")}, 0);
    }
    if (name == "out_norm.weight") return read("norm.weight");
  }
  const at::Tensor tensor = read(name);
  return name == "conv1d.weight" ? tensor.squeeze(1) : tensor;
}

void load_golden(const Case& c, Mixer& mixer) {
  for (const auto& name : mixer.names) mixer.at(name).value().copy_(golden(c, "weight", name));
}

void check_golden(const Case& c, at::ScalarType dtype, double tolerance, double gradients) {
  SCOPED_TRACE(c.name + " in " + c10::toString(dtype));
  Mixer mixer(c, dtype);
  load_golden(c, mixer);
  for (const auto& name : mixer.names) {
    ops::Parameter& parameter = mixer.at(name);
    parameter.attach_grad(at::zeros_like(parameter.value()).fill_(1234.5));
  }
  const at::Tensor x = golden(c, "", "x").to(dtype).requires_grad_(true);
  const at::Tensor y = mixer.run(x, {0, x.size(0)});
  expect_close(y, golden(c, "", "y"), tolerance, "y");
  torch::autograd::backward({y}, {golden(c, "", "grad_y").to(dtype)});
  expect_close(x.grad(), golden(c, "", "grad_x"), gradients, "grad_x");
  for (const auto& name : mixer.names) {
    expect_close(mixer.at(name).grad(), golden(c, "grad", name), gradients, name);
  }
}

TEST(RecurrentMixers, values_and_every_gradient_equal_those_of_transformers) {
  for (const Case& c : kCases) {
    check_golden(c, at::kDouble, 1e-12, 1e-12);
    // The inverse of a chunk costs the delta rule's float32 gradients a digit: 1.3e-5 was seen.
    check_golden(c, at::kFloat, 1e-5, 3e-5);
  }
}

TEST(RecurrentMixers, packed_segments_equal_runs_of_their_own) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Mixer mixer(c, at::kFloat);
    load_golden(c, mixer);
    const at::NoGradGuard no_grad;
    const at::Tensor x = golden(c, "", "x").to(at::kFloat);
    const at::Tensor packed = mixer.run(x, {0, 2, 40, 75});
    const at::Tensor apart =
        at::cat({mixer.run(x.narrow(0, 0, 2), {0, 2}), mixer.run(x.narrow(0, 2, 38), {0, 38}),
                 mixer.run(x.narrow(0, 40, 35), {0, 35})},
                0);
    expect_close(packed, apart, 1e-6);
    EXPECT_GT(relative_error(mixer.run(x, {0, 75}), packed), 1e-3);
  }
}

TEST(RecurrentMixers, decoding_with_a_cache_equals_the_whole_sequence) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Mixer mixer(c, at::kFloat);
    load_golden(c, mixer);
    const at::NoGradGuard no_grad;
    const at::Tensor x = golden(c, "", "x").to(at::kFloat);
    const at::Tensor whole = mixer.run(x, {0, 75});
    nn::KvCache cache(mixer.spec, 75, at::kFloat, at::kCPU);
    for (int64_t round = 0; round < 2; ++round) {
      std::vector<at::Tensor> parts;
      int64_t done = 0;
      for (const int64_t count : {66, 2, 1, 1, 1, 1, 1, 1, 1}) {
        parts.push_back(mixer.run(x.narrow(0, done, count), {0, count}, &cache));
        cache.advance(count);
        done += count;
      }
      expect_close(at::cat(parts, 0), whole, 2e-6);
      EXPECT_EQ(cache.truncate(75), 75);
      EXPECT_EQ(cache.truncate(70), 0);  // and the second round starts afresh
    }
  }
}

TEST(RecurrentStates, only_layers_that_keep_one_have_one) {
  using Kind = model::MixerKind;
  const auto spec = spec_with({Kind::kGatedDeltaNet, Kind::kAttention, Kind::kMamba2});
  nn::KvCache cache(spec, 8, at::kBFloat16, at::kCPU);
  EXPECT_EQ(cache.recurrent(0).states.sizes(), (std::vector<int64_t>{1, 4, 8, 6}));
  EXPECT_EQ(cache.recurrent(0).states.scalar_type(), at::kFloat);
  EXPECT_EQ(cache.recurrent(0).conv_tails.sizes(), (std::vector<int64_t>{1, 3, 56}));
  EXPECT_FALSE(cache.recurrent(1).defined());
  EXPECT_EQ(cache.recurrent(2).states.sizes(), (std::vector<int64_t>{1, 4, 12, 10}));
  EXPECT_EQ(nn::KvCache::elements_per_token(spec), 2 * spec.num_query_groups * spec.head_dim);
  EXPECT_EQ(nn::KvCache::fixed_bytes(spec, at::kBFloat16),
            4 * (4 * 8 * 6 + 4 * 12 * 10) + 2 * 3 * (56 + 64));
  const auto attention = spec_with({Kind::kAttention});
  nn::KvCache plain(attention, 8, at::kFloat, at::kCPU);
  plain.advance(6);
  EXPECT_EQ(plain.truncate(4), 4);
}

TEST(RecurrentStates, a_hybrid_decoder_decodes_what_it_computes_at_once) {
  using Kind = model::MixerKind;
  const auto spec = spec_with({Kind::kGatedDeltaNet, Kind::kAttention, Kind::kMamba2});
  nn::ParameterSet parameters(spec, at::kDouble, at::kCPU, false);
  parameters.initialize(3);
  nn::Decoder decoder(spec, parameters);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = at::arange(12, at::kLong) * 5 % 31,
                   positions = at::arange(12, at::kLong);
  const at::Tensor whole = decoder.forward(
      {.tokens = tokens, .positions = positions, .max_position = 11, .segment_starts = {0, 12}});
  nn::KvCache cache(spec, 12, at::kDouble, at::kCPU);
  std::vector<at::Tensor> parts;
  for (int64_t done = 0; done < 12;) {
    const int64_t count = done == 0 ? 7 : 1;
    parts.push_back(decoder.forward({.tokens = tokens.narrow(0, done, count),
                                     .positions = positions.narrow(0, done, count),
                                     .max_position = 11,
                                     .segment_starts = {0, count},
                                     .cache = &cache}));
    done += count;
  }
  expect_close(at::cat(parts, 0), whole, 1e-11);
}

}  // namespace
}  // namespace qianli::testing
