// Adapters attached to one model against models that have them merged into their weights.
#include <gtest/gtest.h>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>

#include "qianli/base/error.h"
#include "qianli/infer/beam_search.h"
#include "qianli/infer/engine.h"
#include "qianli/infer/score.h"
#include "qianli/nn/attached_adapters.h"
#include "tests/infer/requests.h"
#include "tests/infer/small_specs.h"
#include "tests/support/engine_support.h"

namespace qianli::infer {
namespace {

using testing::alone;
using testing::run_all;
using testing::small_specs;
using Layers = std::map<std::string, nn::AttachedLowRank>;

constexpr uint64_t kSeed = 7;

at::Tensor numbers(at::IntArrayRef shape, int64_t seed, double size) {
  int64_t count = 1;
  for (const int64_t axis : shape) count *= axis;
  const auto steps = at::arange(count, at::TensorOptions().dtype(at::kDouble));
  return (steps * 1.7 + static_cast<double>(seed)).sin().mul_(size).view(shape);
}

// Beside every linear layer, experts too; `seed` says which.
Layers made_adapter(Model& model, int64_t seed) {
  Layers layers;
  const auto options = model.parameters().options();
  for (size_t i = 0; i < model.parameters().size(); ++i) {
    const auto& [name, shape] =
        std::pair(model.parameters().entry(i).name, model.parameters().entry(i).shape);
    const bool linear = name.ends_with("_proj.weight") || name.ends_with("linear_qkv.weight") ||
                        name.ends_with("_fc1.weight") || name.ends_with("_fc2.weight");
    if (!linear || name.find("indexer") != std::string::npos) continue;
    const int64_t rank = 2 + seed % 2, rows = shape[shape.size() - 2], columns = shape.back();
    const bool experts = shape.size() == 3;
    // Two modules, the second of which begins behind a gap.
    const int64_t half = rows / 2;
    std::vector<int64_t> a{2 * rank, columns}, b{2 * half - 1, rank};
    if (experts) a.insert(a.begin(), shape[0]), b.insert(b.begin(), shape[0]);
    layers[name.substr(0, name.rfind('.'))] = {
        .a = numbers(a, seed + 3 * static_cast<int64_t>(i), 0.5).to(options),
        .b = numbers(b, seed + 5 * static_cast<int64_t>(i), 0.5).to(options),
        .modules = {{0, half}, {half + 1, half - 1}},
        .scale = 0.3};
    if (experts || seed % 2 == 0) continue;
    layers[name.substr(0, name.rfind('.'))].factors = (numbers({rows}, seed, 0.3) + 1).to(options);
  }
  return layers;
}

void merge(Model& model, const Layers& layers) {
  for (const auto& [layer, adapter] : layers) {
    const size_t index = model.parameters().index_of(layer + ".weight");
    const at::Tensor weight = model.parameters().at(index).value();
    if (weight.dim() == 2) {
      model.parameters().write(index, 0, adapter.merged(weight));
      continue;
    }
    std::vector<at::Tensor> experts;
    for (int64_t e = 0; e < weight.size(0); ++e) {
      nn::AttachedLowRank own = adapter;
      own.a = adapter.a[e];
      own.b = adapter.b[e];
      experts.push_back(own.merged(weight[e]));
    }
    model.parameters().write(index, 0, at::stack(experts));
  }
}

// A model with two adapters, and three that are it with one or none of them merged.
struct Models {
  std::unique_ptr<Model> attached;
  std::vector<std::unique_ptr<Model>> merged;  // by adapter + 1

  explicit Models(const model::ModelSpec& spec, at::ScalarType dtype = at::kDouble)
      : attached(Model::initialized(spec, dtype, kSeed)) {
    merged.push_back(Model::initialized(spec, dtype, kSeed));
    for (int64_t i = 0; i < 2; ++i) {
      const Layers layers = made_adapter(*attached, i);
      EXPECT_EQ(attached->parameters().attached().attach(layers), i);
      merged.push_back(Model::initialized(spec, dtype, kSeed));
      merge(*merged.back(), layers);
    }
  }
  Model& of(int64_t adapter) { return *merged[static_cast<size_t>(adapter + 1)]; }
};

TokenIds some_tokens(int64_t count, int64_t seed = 0) {
  TokenIds ids;
  for (int64_t t = 0; t < count; ++t) ids.push_back((t * 7 + seed * 11) % 61);
  return ids;
}

TEST(Adapters, logits_are_those_of_the_merged_model) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    for (const auto& [name, spec] : small_specs()) {
      SCOPED_TRACE(name);
      Models models(spec, dtype);
      for (int64_t adapter = -1; adapter < 2; ++adapter) {
        // At once, and in parts behind a cache.
        for (const int64_t at_once : {64, 10}) {
          at::Tensor logits[2];
          int next = 0;
          for (Model* model : {models.attached.get(), &models.of(adapter)}) {
            const std::vector<TokenIds> sequences{some_tokens(31)};
            const int64_t own = model == models.attached.get() ? adapter : nn::kNoAdapter;
            std::vector<at::Tensor> rows;
            score(*model, sequences, {.tokens_at_once = at_once, .adapter = own},
                  [&](const at::Tensor& part) { rows.push_back(part.clone()); });
            logits[next++] = at::cat(rows);
          }
          testing::expect_close(logits[0], logits[1], 1e-5, name);
        }
      }
    }
  }
}

TEST(Adapters, several_and_none_in_a_batch_get_what_they_get_alone) {
  for (const auto& [name, spec] : small_specs()) {
    SCOPED_TRACE(name);
    Models models(spec);
    std::vector<Request> requests;
    for (int64_t i = 0; i < 9; ++i) {
      Request& request = requests.emplace_back(
          Request{.max_new_tokens = 6 + i, .ignore_eos = true, .adapter = i % 3 - 1});
      request.prompt = some_tokens(1 + (i * 13) % 40, i);
      if (i % 2 == 1) request.sampling = {.temperature = 0.9, .seed = static_cast<uint64_t>(i)};
    }
    Engine engine(*models.attached, {.block_size = 8, .max_sequences = 6, .tokens_at_once = 30});
    const auto results = run_all(engine, requests);
    for (size_t i = 0; i < requests.size(); ++i)
      EXPECT_EQ(results[i].tokens, alone(models.of(requests[i].adapter), requests[i])) << i;
    EXPECT_NE(results[0].tokens, alone(models.of(0), requests[0]));
  }
}

TEST(Adapters, blocks_are_shared_with_the_same_adapter_only) {
  Models models(small_specs().at("dense"));
  Engine engine(*models.attached, {.block_size = 8});
  const auto ask = [&](int64_t adapter) {
    const Request request{
        .prompt = some_tokens(37), .max_new_tokens = 5, .ignore_eos = true, .adapter = adapter};
    const auto result = run_all(engine, {request})[0];
    EXPECT_EQ(result.tokens, alone(models.of(adapter), request));
    return result.cached_tokens;
  };
  for (const int64_t adapter : {-1, 0, 1}) EXPECT_EQ(ask(adapter), 0) << adapter;
  for (const int64_t adapter : {-1, 0, 1}) EXPECT_EQ(ask(adapter), 32) << adapter;
}

TEST(Adapters, beams_have_them_too) {
  Models models(small_specs().at("dense"));
  const TokenIds prompt = some_tokens(5);
  const auto beams =
      beam_search(*models.attached, prompt,
                  {.num_beams = 3, .max_new_tokens = 6, .ignore_eos = true, .adapter = 1});
  const auto expected =
      beam_search(models.of(1), prompt, {.num_beams = 3, .max_new_tokens = 6, .ignore_eos = true});
  ASSERT_EQ(beams.size(), expected.size());
  EXPECT_EQ(beams[0].tokens, expected[0].tokens);
}

TEST(Adapters, a_number_that_is_none_is_refused) {
  const auto model = Model::initialized(small_specs().at("dense"), at::kFloat, kSeed);
  Engine engine(*model, {});
  EXPECT_THROW(engine.submit({.prompt = {1}, .adapter = 0}, {}, {}), ConfigError);
  EXPECT_THROW(score(*model, std::vector<TokenIds>{{1, 2}}, {.adapter = 3}), ConfigError);
}

}  // namespace
}  // namespace qianli::infer
