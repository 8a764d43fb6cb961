// Where Megatron has which rows: the worked examples of its layouts, and what does not fit them.
#include "qianli/convert/megatron/tensors.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/model/presets.h"
#include "tests/convert/made_model.h"

namespace qianli::convert {
namespace {

using testing::rows_of;
using testing::tensor_named;

// 4 heads of size 2 in 2 groups, an MLP of width 4.
model::ModelSpec tiny() {
  model::ModelSpec spec = model::preset("llama-tiny");
  spec.num_layers = 4;
  spec.hidden_size = 8;
  spec.ffn_hidden_size = 4;
  spec.num_attention_heads = 4;
  spec.num_query_groups = 2;
  spec.head_dim = 2;
  spec.vocab_size = 10;
  spec.tie_word_embeddings = false;
  return spec;
}

std::vector<ForeignTensor> tensors_of(const model::ModelSpec& spec, const MegatronLayout& layout) {
  const Table table = model::parameter_table(spec);
  const auto tensors = megatron_tensors(spec, table, layout);
  check_cover(table, tensors, "test");
  return tensors;
}

TEST(Megatron, weaves_queries_keys_and_values_by_group) {
  const auto tensors = tensors_of(tiny(), {.tensor = 2});
  const std::string name = "model.decoder.layers.0.self_attention.linear_qkv.weight";
  // Our rows: queries 0-7, keys 8-11, values 12-15; a group has two query heads, a key and a value
  // of two rows.
  EXPECT_EQ(rows_of(tensor_named(tensors, name, 0)),
            (std::vector<int64_t>{0, 1, 2, 3, 8, 9, 12, 13}));
  EXPECT_EQ(rows_of(tensor_named(tensors, name, 1)),
            (std::vector<int64_t>{4, 5, 6, 7, 10, 11, 14, 15}));
}

// fix_query_key_value_ordering: on each rank [3, heads, size] before 1.0, [heads, size, 3]
// before 2.0.
TEST(Megatron, knows_the_older_orders_of_queries_keys_and_values) {
  model::ModelSpec spec = tiny();
  spec.num_query_groups = 4;  // rows: queries 0-7, keys 8-15, values 16-23
  const std::string name =
      "model.language_model.encoder.layers.0.self_attention.query_key_value.weight";
  MegatronLayout layout{
      .tensor = 2, .names = MegatronNames::kLegacy, .fused_rows = FusedRows::kApart};
  EXPECT_EQ(rows_of(tensor_named(tensors_of(spec, layout), name, 1)),
            (std::vector<int64_t>{4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23}));
  layout.fused_rows = FusedRows::kWoven;
  EXPECT_EQ(rows_of(tensor_named(tensors_of(spec, layout), name, 1)),
            (std::vector<int64_t>{4, 12, 20, 5, 13, 21, 6, 14, 22, 7, 15, 23}));
}

TEST(Megatron, cuts_gate_and_up_apart) {
  const auto tensors = tensors_of(tiny(), {.tensor = 2});
  const std::string name = "model.decoder.layers.0.mlp.linear_fc1.weight";
  EXPECT_EQ(rows_of(tensor_named(tensors, name, 0)), (std::vector<int64_t>{0, 1, 4, 5}));
  EXPECT_EQ(rows_of(tensor_named(tensors, name, 1)), (std::vector<int64_t>{2, 3, 6, 7}));
}

TEST(Megatron, pads_the_vocabulary_of_the_last_rank) {
  const auto tensors = tensors_of(tiny(), {.tensor = 2, .vocab_divisor = 4});
  EXPECT_EQ(rows_of(tensor_named(tensors, "model.output_layer.weight", 0)),
            (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(rows_of(tensor_named(tensors, "model.output_layer.weight", 1)),
            (std::vector<int64_t>{8, 9, -1, -1, -1, -1, -1, -1}));
}

std::vector<std::vector<int64_t>> layers_of(const std::vector<plan::ChunkLayers>& chunks) {
  std::vector<std::vector<int64_t>> layers;
  for (const plan::ChunkLayers& chunk : chunks) {
    layers.emplace_back();
    for (const auto& place : chunk.layers) layers.back().push_back(place.global);
  }
  return layers;
}

TEST(Megatron, places_layers_on_stages) {
  using Layers = std::vector<std::vector<int64_t>>;
  model::ModelSpec spec = tiny();
  spec.num_layers = 8;
  const auto folded = place_layers(spec, {.pipeline = 2, .dual_pipe_v = true});
  EXPECT_EQ(layers_of(folded[0]), (Layers{{0, 1}, {6, 7}}));
  EXPECT_EQ(layers_of(folded[1]), (Layers{{2, 3}, {4, 5}}));
  const auto interleaved = place_layers(spec, {.pipeline = 2, .layers_per_virtual_stage = 2});
  EXPECT_EQ(layers_of(interleaved[0]), (Layers{{0, 1}, {4, 5}}));
  EXPECT_EQ(layers_of(interleaved[1]), (Layers{{2, 3}, {6, 7}}));
  const auto uneven = place_layers(spec, {.pipeline = 2, .layers_per_stage = {3, 5}});
  EXPECT_EQ(layers_of(uneven[1]), (Layers{{3, 4, 5, 6, 7}}));
  // A no-op layer keeps its number: the real ones around it do not move together.
  spec.num_layers = 3;
  const auto gaps = place_layers(spec, {.pipeline = 2, .noop_layers = {2}});
  EXPECT_EQ(layers_of(gaps[1]), (Layers{{2}}));
  EXPECT_EQ(gaps[1].front().layers.front().local, 1);
}

TEST(Megatron, names_folders_of_ranks) {
  EXPECT_EQ(rank_folder({}, {}), "mp_rank_00");
  EXPECT_EQ(rank_folder({.pipeline = 2}, {.tensor = 1, .pipeline = 1}), "mp_rank_01_001");
  EXPECT_EQ(rank_folder({.expert = 2}, {.tensor = 1, .expert = 1}), "mp_rank_01_001");
  EXPECT_EQ(rank_folder({.pipeline = 2, .expert = 2}, {.tensor = 1, .pipeline = 0, .expert = 1}),
            "mp_rank_01_000_001");
}

TEST(Megatron, refuses_what_does_not_fit) {
  EXPECT_THROW(tensors_of(tiny(), {.tensor = 3}), ConfigError);
  EXPECT_THROW(tensors_of(tiny(), {.tensor = 4}), ConfigError);  // two groups
  EXPECT_THROW(tensors_of(tiny(), {.pipeline = 3}), ConfigError);
  EXPECT_THROW(tensors_of(tiny(), {.expert = 2}), ConfigError);
  EXPECT_THROW(tensors_of(tiny(), {.pipeline = 2, .layers_per_stage = {1, 2}}), ConfigError);
  EXPECT_THROW(tensors_of(tiny(), {.noop_layers = {0, 0}}), ConfigError);
  EXPECT_THROW(tensors_of(tiny(), {.padded_vocab_size = 8}), ConfigError);
}

std::string refusal(const model::ModelSpec& spec, const MegatronLayout& layout) {
  try {
    tensors_of(spec, layout);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Megatron, says_which_option_to_change) {
  EXPECT_EQ(
      refusal(tiny(), {.tensor = 4}),
      "[convert] expected key/value heads to be a multiple of --tensor 4, got 2. Hint: give a "
      "--tensor that divides 2.");
  model::ModelSpec spec = tiny();
  spec.qk_norm = model::QkNorm::kHead;
  EXPECT_EQ(refusal(spec, {.names = MegatronNames::kLegacy}),
            "[convert] expected a model that Megatron's layout can hold, got " + spec.family +
                " with norms of queries and keys, which legacy names do not have.");
}

TEST(Cover, finds_rows_that_are_missing_or_there_twice) {
  const Table table = model::parameter_table(tiny());
  auto tensors = megatron_tensors(tiny(), table, {.tensor = 2});
  auto& qkv = const_cast<ForeignTensor&>(
      tensor_named(tensors, "model.decoder.layers.0.self_attention.linear_qkv.weight", 1));
  const auto parts = qkv.parts;
  qkv.parts.pop_back();
  EXPECT_THROW(check_cover(table, tensors, "test"), CheckpointError);
  qkv.parts = parts;
  qkv.parts.push_back(parts.back());
  EXPECT_THROW(check_cover(table, tensors, "test"), CheckpointError);
}

}  // namespace
}  // namespace qianli::convert
