#include "qianli/plan/model_part.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "qianli/model/presets.h"

namespace qianli::plan {
namespace {

model::ModelSpec small(const std::string& name) {
  model::ModelSpec spec = model::preset(name);
  spec.num_layers = 4;
  spec.hidden_size = 6;
  spec.ffn_hidden_size = 10;
  spec.num_attention_heads = 12;
  spec.num_query_groups = spec.latent_attention ? 12 : 6;
  spec.head_dim = 8;
  spec.vocab_size = 13;
  spec.max_position_embeddings = 5;
  if (spec.latent_attention) {
    spec.latent_attention = model::LatentAttention{.q_lora_rank = 4,
                                                   .kv_lora_rank = 3,
                                                   .qk_nope_head_dim = 6,
                                                   .qk_rope_head_dim = 2,
                                                   .v_head_dim = 2};
  }
  if (spec.moe) {
    spec.moe->num_experts = 6;
    spec.moe->top_k = 2;
    spec.moe->num_groups = spec.moe->topk_groups = 1;
    spec.moe->ffn_hidden_size = 8;
    if (spec.moe->shared_ffn_hidden_size > 0) spec.moe->shared_ffn_hidden_size = 9;
    spec.moe->first_k_dense = 1;
  }
  if (spec.gated_delta_net) {
    spec.gated_delta_net = model::GatedDeltaNet{
        .num_key_heads = 6, .num_value_heads = 12, .key_head_dim = 2, .value_head_dim = 3};
  }
  return spec;
}

std::vector<std::string> models() {
  return {"llama3-8b", "gpt2-124m", "qwen3-30b-a3b", "deepseek-v3-671b", "qwen3-next-80b-a3b"};
}

// How often each element of a parameter is held and counted, over all parts of a model.
struct Uses {
  std::vector<int> held, counted;
};

void add(std::map<std::string, Uses>& uses, const ParameterPart& part) {
  Uses& own = uses[part.entry.name];
  const auto whole = static_cast<size_t>(part.entry.elements());
  own.held.resize(whole);
  own.counted.resize(whole);
  int64_t next = 0;
  for (const Run& run : runs(part)) {
    EXPECT_EQ(run.first, next) << part.entry.name;
    next += run.count;
    for (int64_t i = 0; i < run.count; ++i) {
      const auto at = static_cast<size_t>(run.whole_first + i);
      ++own.held.at(at);
      if (run.first + i < part.counted) ++own.counted[at];
    }
  }
  EXPECT_EQ(next, part.elements()) << part.entry.name;
}

TEST(ModelPart, every_element_is_held_and_one_rank_answers_for_it) {
  for (const std::string& name : models()) {
    const model::ModelSpec spec = small(name);
    for (const int64_t tensor : {1, 2, 3, 4, 6, 12}) {
      if (!part_problems(spec, {.tensor = {0, tensor}}).empty()) continue;
      SCOPED_TRACE(fmt::format("{} by {}", name, tensor));
      std::map<std::string, Uses> uses;
      for (int64_t rank = 0; rank < tensor; ++rank) {
        const Share share{rank, tensor};
        const bool width = spec.moe && spec.moe->ffn_hidden_size >= tensor;
        for (const ParameterPart& part :
             parameter_parts(spec, {.tensor = share, .expert_tensor = width ? share : Share{}})) {
          if (!width && part.entry.expert && rank > 0) continue;
          add(uses, part);
        }
      }
      ASSERT_EQ(uses.size(), model::parameter_table(spec).size());
      for (const auto& [parameter, own] : uses) {
        EXPECT_EQ(std::ranges::count(own.counted, 1), std::ssize(own.counted)) << parameter;
        EXPECT_EQ(std::ranges::count(own.held, 0), 0) << parameter;
      }
    }
  }
}

// The ranks of x y, of which the y cut the stream.
TEST(ModelPart, every_element_is_held_where_the_stream_is_cut_as_well) {
  for (const char* name : {"llama3-8b", "gpt2-124m"}) {
    model::ModelSpec spec = small(name);
    spec.vocab_size = 25;
    spec.ffn_hidden_size = 13;
    for (const auto& [x, y] : {std::pair<int64_t, int64_t>{2, 2}, {2, 3}, {3, 2}, {12, 2}}) {
      ASSERT_TRUE(part_problems(spec, {.tensor = {0, x * y}, .columns = {0, y}}).empty());
      SCOPED_TRACE(fmt::format("{} by {} x {}", name, x, y));
      std::map<std::string, Uses> uses;
      for (int64_t rank = 0; rank < x * y; ++rank) {
        const ModelPart part{.tensor = {rank, x * y}, .columns = {rank / x, y}};
        for (const ParameterPart& own : parameter_parts(spec, part)) add(uses, own);
      }
      ASSERT_EQ(uses.size(), model::parameter_table(spec).size());
      for (const auto& [parameter, own] : uses) {
        EXPECT_EQ(std::ranges::count(own.counted, 1), std::ssize(own.counted)) << parameter;
        EXPECT_EQ(std::ranges::count(own.held, 0), 0) << parameter;
      }
    }
  }
}

TEST(ModelPart, what_has_no_second_dimension_is_said) {
  const ModelPart part{.tensor = {0, 4}, .columns = {0, 2}};
  for (const auto& [name, what] : {std::pair{"qwen3-30b-a3b", "a mixture of experts"},
                                   {"deepseek-v3-671b", "latent attention"},
                                   {"qwen3-next-80b-a3b", "gated delta net"}}) {
    const std::string said = fmt::format("{}", fmt::join(part_problems(small(name), part), "; "));
    EXPECT_NE(said.find(what), std::string::npos) << said;
    EXPECT_NE(said.find("parallel.tensor=4"), std::string::npos) << said;
  }
  model::ModelSpec narrow = small("llama3-8b");
  narrow.hidden_size = 2;
  const auto problems = part_problems(narrow, {.tensor = {0, 6}, .columns = {0, 3}});
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].find("parallel.tensor_y of at most 2"), std::string::npos);
}

TEST(ModelPart, experts_are_shared_by_number_and_by_width) {
  const model::ModelSpec spec = small("qwen3-30b-a3b");
  std::map<std::string, Uses> uses;
  for (int64_t e = 0; e < 4; ++e) {
    for (int64_t t = 0; t < 2; ++t) {
      for (const auto& part : parameter_parts(spec, {.experts = {e, 4}, .expert_tensor = {t, 2}})) {
        if (part.entry.expert) add(uses, part);
      }
    }
  }
  for (const auto& [parameter, own] : uses) {
    EXPECT_EQ(std::ranges::count(own.counted, 1), std::ssize(own.counted)) << parameter;
  }
}

// The layers of a rank are built from the spec of its part: their shapes must be those of the
// parts.
TEST(ModelPart, the_spec_of_a_part_has_its_shapes) {
  for (const std::string& name : models()) {
    const model::ModelSpec spec = small(name);
    for (const int64_t tensor : {2, 3, 6, 12}) {
      if (!part_problems(spec, {.tensor = {0, tensor}}).empty()) continue;
      for (int64_t rank = 0; rank < tensor; ++rank) {
        const Share share{rank, tensor};
        std::map<std::string, std::vector<int64_t>> shapes;
        for (const auto& entry : model::parameter_table(spec_of_part(spec, share))) {
          shapes[entry.name] = entry.shape;
        }
        for (const auto& part : parameter_parts(spec, {.tensor = share})) {
          if (part.entry.name.find("attention") == std::string::npos) continue;
          EXPECT_EQ(part.shape, shapes.at(part.entry.name))
              << name << " " << part.entry.name << " " << rank << " of " << tensor;
        }
      }
    }
  }
}

TEST(ModelPart, fewer_groups_than_ranks_are_held_by_neighbours) {
  const model::ModelSpec spec = small("llama3-8b");  // 12 heads of 8 in 6 groups
  const auto parts = parameter_parts(spec, {.tensor = {3, 12}});
  const auto qkv = std::ranges::find(parts, "decoder.layers.0.self_attention.linear_qkv.weight",
                                     [](const ParameterPart& p) { return p.entry.name; });
  EXPECT_EQ(qkv->shape, (std::vector<int64_t>{24, 6}));
  EXPECT_EQ(qkv->kept[0], (std::vector<IndexRange>{{24, 32}, {104, 112}, {152, 160}}));
  EXPECT_EQ(qkv->sharers, 2);
  EXPECT_EQ(qkv->shared_from, 8 * 6);
  EXPECT_EQ(qkv->counted, 8 * 6);  // rank 2 answers for the keys
  EXPECT_EQ(first_head(spec.layer(0), {3, 12}), 3);
}

TEST(ModelPart, what_cannot_be_shared_is_said) {
  EXPECT_TRUE(part_problems(small("llama3-8b"), {.tensor = {0, 6}}).empty());
  const auto problems = part_problems(small("llama3-8b"), {.tensor = {0, 8}, .experts = {0, 2}});
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_NE(problems[0].find("12 query heads in 6 groups"), std::string::npos);
  EXPECT_NE(problems[1].find("parallel.expert=1"), std::string::npos);
}

TEST(ModelPart, boxes_are_found_from_both_sides) {
  const model::ModelSpec spec = small("qwen3-30b-a3b");
  for (const auto& part :
       parameter_parts(spec, {.tensor = {1, 3}, .experts = {1, 2}, .expert_tensor = {1, 2}})) {
    const auto size = part.shape.size();
    const formats::Box local{std::vector<int64_t>(size, 0), part.shape};
    const formats::Box whole{std::vector<int64_t>(size, 0), part.entry.shape};
    const auto there = placed(part, local), here = common(part, whole);
    ASSERT_EQ(there.size(), here.size());
    int64_t elements = 0;
    for (size_t i = 0; i < there.size(); ++i) {
      EXPECT_EQ(there[i].whole, here[i].whole);
      EXPECT_EQ(there[i].local, here[i].local);
      elements += there[i].local.elements();
    }
    EXPECT_EQ(elements, part.elements());
  }
}

TEST(ModelPart, a_stage_holds_its_layers_and_what_stands_around_them) {
  model::ModelSpec spec = small("llama3-8b");
  spec.tie_word_embeddings = true;
  const auto chunks = place_layers({.layers = 4, .stages = 2});
  const auto first = parameter_parts(spec, {.chunks = chunks[0]});
  const auto last = parameter_parts(spec, {.chunks = chunks[1]});
  EXPECT_EQ(first.front().entry.name, "embedding.word_embeddings.weight");
  EXPECT_EQ(first.back().entry.layer, 1);
  EXPECT_EQ(last.front().entry.name, "embedding.word_embeddings.weight");
  EXPECT_EQ(last.front().counted, 0);  // the first stage answers for it
  EXPECT_EQ(last.back().entry.name, "decoder.final_layernorm.weight");
}

}  // namespace
}  // namespace qianli::plan
