#include "qianli/model/parameter_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/presets.h"
#include "tests/support/test_paths.h"

namespace qianli::model {
namespace {

const std::vector<std::string> kGoldens{
    "gpt2",    "llama1",         "llama2", "llama3.1",   "llama_dynamic", "llama_linear",
    "mistral", "mistral_window", "qwen2",  "qwen2_yarn", "qwen3"};

fs::path golden(const std::string& family) {
  return testing::source_path("tests/golden/models/" + family);
}

using Shapes = std::map<std::string, std::vector<int64_t>>;

// Names and shapes of a safetensors file: 8 bytes of header length, then JSON.
Shapes file_shapes(const fs::path& path) {
  const std::string bytes = read_file(path, FileRole::kData);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  const Json header = Json::parse(bytes.substr(8, length));
  Shapes shapes;
  for (const auto& [name, tensor] : header.items()) {
    if (name != "__metadata__") shapes[name] = tensor.at("shape").get<std::vector<int64_t>>();
  }
  return shapes;
}

// The tensors a parameter table expects of a Hugging Face folder; every row of theirs and of ours
// is named exactly once.
Shapes foreign_shapes(const std::vector<ParameterEntry>& table) {
  Shapes shapes;
  std::map<std::pair<std::string, int64_t>, std::vector<bool>> covered;  // by tensor and slice
  for (const auto& entry : table) {
    int64_t next = 0;
    for (const auto& piece : entry.hugging_face) {
      EXPECT_EQ(piece.first_row, next) << entry.name;  // pieces cover the parameter in order
      next += piece.rows;
      EXPECT_EQ(entry.elements() % piece.own_columns(), 0) << entry.name;
      const auto [known, fresh] = shapes.emplace(piece.name, piece.shape);
      EXPECT_TRUE(fresh || known->second == piece.shape) << piece.name;
      auto& rows = covered[{piece.name, piece.index}];
      rows.resize(static_cast<size_t>(piece.slice_rows()), false);
      for (int64_t r = 0; r < piece.rows; ++r) {
        const auto place = static_cast<size_t>(piece.foreign_row_of(r));
        EXPECT_FALSE(rows.at(place)) << piece.name << " row " << place << " stands twice";
        rows[place] = true;
      }
    }
    EXPECT_EQ(next * entry.hugging_face.at(0).own_columns(), entry.elements()) << entry.name;
  }
  for (const auto& [where, rows] : covered) {
    EXPECT_EQ(std::count(rows.begin(), rows.end(), false), 0) << where.first;
  }
  return shapes;
}

TEST(ParameterTable, covers_exactly_the_tensors_of_every_family_as_transformers_saves_them) {
  for (const auto& family : kGoldens) {
    const auto table = parameter_table(load_spec(golden(family)));
    EXPECT_EQ(foreign_shapes(table), file_shapes(golden(family) / "model.safetensors")) << family;
  }
}

const Json& tiny_families() {
  static const Json families =
      read_json(testing::source_path("tests/golden/families.json"), FileRole::kData);
  return families;
}

// tools/reference/check_tensors.py: a tiny model of every family that transformers builds, and what
// save_pretrained writes of it.
TEST(ParameterTable, has_the_tensors_of_every_family_as_transformers_saves_them) {
  ASSERT_GE(tiny_families().size(), 38u);
  for (const Json& family : tiny_families()) {
    const auto name = family.at("name").get<std::string>();
    SCOPED_TRACE(name);
    const auto table = parameter_table(from_hugging_face(family.at("config"), name));
    EXPECT_EQ(foreign_shapes(table), family.at("tensors").get<Shapes>());
  }
}

TEST(ParameterTable, reads_experts_one_by_one_and_stacked) {
  size_t stacked = 0;
  for (const Json& family : tiny_families()) {
    SCOPED_TRACE(family.at("name").get<std::string>());
    auto table = parameter_table(from_hugging_face(family.at("config"), "tiny"));
    for (ParameterEntry& entry : table) {
      if (entry.hugging_face_also.empty()) continue;
      entry.hugging_face = entry.hugging_face_also;  // covers the parameter as well
      ++stacked;
    }
    foreign_shapes(table);
  }
  EXPECT_GT(stacked, 10u);
}

TEST(ParameterTable, keeps_a_routers_selection_bias_out_of_training) {
  const ModelSpec spec = preset("deepseek-v3-671b");
  size_t buffers = 0;
  for (const auto& entry : parameter_table(spec)) {
    EXPECT_EQ(entry.buffer, entry.name.ends_with("router.expert_bias")) << entry.name;
    buffers += entry.buffer;
  }
  EXPECT_EQ(buffers, 58u + 1u);  // the mixtures of 61 layers, and that of multi-token prediction
}

TEST(ParameterTable, repeats_embedding_and_output_where_multi_token_prediction_does) {
  std::map<std::string, std::vector<std::string>> copies;
  for (const auto& entry : parameter_table(preset("deepseek-v3-671b"))) {
    if (!entry.hugging_face_copies.empty()) copies[entry.name] = entry.hugging_face_copies;
  }
  const std::map<std::string, std::vector<std::string>> expected{
      {"embedding.word_embeddings.weight", {"model.layers.61.embed_tokens.weight"}},
      {"output_layer.weight", {"model.layers.61.shared_head.head.weight"}}};
  EXPECT_EQ(copies, expected);
}

TEST(ParameterTable, counts_what_it_lists) {
  for (const Json& family : tiny_families()) {
    const ModelSpec spec = from_hugging_face(family.at("config"), "tiny");
    int64_t total = 0;
    for (const auto& entry : parameter_table(spec)) total += entry.elements();
    EXPECT_EQ(parameter_count(spec), total) << spec.family;
  }

  for (const auto& family : kGoldens) {
    const ModelSpec spec = load_spec(golden(family));
    int64_t total = 0;
    for (const auto& entry : parameter_table(spec)) total += entry.elements();
    EXPECT_EQ(parameter_count(spec), total) << family;
  }
}

std::map<std::string, ParameterEntry> by_name(const ModelSpec& spec) {
  std::map<std::string, ParameterEntry> entries;
  for (auto& entry : parameter_table(spec)) entries[entry.name] = entry;
  return entries;
}

TEST(ParameterTable, of_a_grouped_query_llama_has_megatron_names_shapes_and_cuts) {
  const ModelSpec spec = load_spec(golden("llama2"));  // h 36, a 6, g 2, d 6, f 72, V 97
  const auto table = parameter_table(spec);
  EXPECT_EQ(table.front().name, "embedding.word_embeddings.weight");
  EXPECT_EQ(table.back().name, "output_layer.weight");
  EXPECT_EQ(table.size(), 1 + 2 * 6 + 2u);

  const auto entries = by_name(spec);
  const auto& qkv = entries.at("decoder.layers.1.self_attention.linear_qkv.weight");
  EXPECT_EQ(qkv.shape, (std::vector<int64_t>{60, 36}));
  ASSERT_EQ(qkv.cut.size(), 3u);  // by groups of queries
  EXPECT_EQ(qkv.cut[0].pieces, 2);
  EXPECT_EQ(qkv.cut[0].width, 18);
  EXPECT_EQ(qkv.cut[0].finer, 3);
  EXPECT_EQ(qkv.cut[2].width, 6);
  EXPECT_EQ(qkv.cut_axis, 0);
  EXPECT_TRUE(qkv.within_block);
  EXPECT_EQ(qkv.layer, 1);
  ASSERT_EQ(qkv.hugging_face.size(), 3u);
  EXPECT_EQ(qkv.hugging_face[1].name, "model.layers.1.self_attn.k_proj.weight");
  EXPECT_EQ(qkv.hugging_face[1].first_row, 36);
  EXPECT_EQ(qkv.hugging_face[2].first_row, 48);
  EXPECT_EQ(entries.at("decoder.layers.0.self_attention.linear_proj.weight").cut_axis, 1);
  EXPECT_EQ(entries.at("decoder.layers.0.mlp.linear_fc1.weight").shape,
            (std::vector<int64_t>{144, 36}));
  EXPECT_EQ(entries.at("decoder.layers.0.mlp.linear_fc2.weight").cut_axis, 1);
  EXPECT_TRUE(entries.at("decoder.final_layernorm.weight").cut.empty());
  EXPECT_FALSE(entries.at("decoder.final_layernorm.weight").within_block);
}

TEST(ParameterTable, of_gpt2_transposes_matrices_inside_layers_only) {
  const auto entries = by_name(load_spec(golden("gpt2")));
  EXPECT_FALSE(entries.contains("output_layer.weight"));  // tied
  EXPECT_FALSE(entries.at("embedding.position_embeddings.weight").hugging_face[0].transposed);
  const auto& qkv = entries.at("decoder.layers.0.self_attention.linear_qkv.weight");
  ASSERT_EQ(qkv.hugging_face.size(), 1u);
  EXPECT_TRUE(qkv.hugging_face[0].transposed);
  const auto& bias = entries.at("decoder.layers.0.self_attention.linear_qkv.bias");
  EXPECT_EQ(bias.cut.size(), 3u);
  EXPECT_FALSE(bias.hugging_face[0].transposed);
  // Added after the partial sums of a row-cut matrix are reduced: every rank holds it whole.
  EXPECT_TRUE(entries.at("decoder.layers.0.mlp.linear_fc2.bias").cut.empty());
}

TEST(ParameterTable, decays_matrices_and_not_vectors) {
  for (const auto& entry : parameter_table(load_spec(golden("qwen2")))) {
    EXPECT_EQ(entry.weight_decay, entry.shape.size() == 2) << entry.name;
  }
}

TEST(InitialValues, follow_the_entry_and_do_not_depend_on_the_slice) {
  const ModelSpec spec = load_spec(golden("qwen2"));
  const auto entries = by_name(spec);
  const auto& fc2 = entries.at("decoder.layers.0.mlp.linear_fc2.weight");
  EXPECT_DOUBLE_EQ(fc2.init_std, 0.02 / 2.0);  // 2 layers: sqrt(2 * 2)
  std::vector<float> whole(static_cast<size_t>(fc2.elements())), part(100);
  initial_values(fc2, 5, 0, whole);
  initial_values(fc2, 5, 777, part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 777));
  double squares = 0;
  for (const float x : whole) squares += double(x) * x;
  EXPECT_NEAR(std::sqrt(squares / double(whole.size())), 0.01, 5e-4);

  std::vector<float> norm(32), bias(64);
  initial_values(entries.at("decoder.final_layernorm.weight"), 5, 0, norm);
  initial_values(entries.at("decoder.layers.0.self_attention.linear_qkv.bias"), 5, 0, bias);
  EXPECT_EQ(norm, std::vector<float>(32, 1.0f));
  EXPECT_EQ(bias, std::vector<float>(64, 0.0f));
  EXPECT_THROW(initial_values(fc2, 5, fc2.elements() - 99, part), std::out_of_range);
}

}  // namespace
}  // namespace qianli::model
