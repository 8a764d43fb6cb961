// LoRA in Megatron checkpoints: what the ranks hold is cut here by hand, and must be what PEFT's
// form of the same adapter is. tools/reference/check_adapter.py shows the result to PEFT itself.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>

#include "qianli/base/error.h"
#include "qianli/convert/megatron/adapter.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"
#include "tests/convert/made_lora.h"
#include "tests/convert/made_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using testing::columns;
using testing::kRank;
using testing::MadeAdapter;
using testing::Matrix;
using testing::random;
using testing::RankTensors;
using testing::refusal;
using testing::rows;
using testing::stacked;
using testing::write_lora;
using testing::WriteOptions;

// An adapter of all linear layers of tests/golden/models/llama2: 2 layers, hidden size 36, 6 heads
// of size 6 in 2 groups, an MLP of width 72.
struct Dense {
  Matrix a(int64_t layer, const std::string& name, int64_t in) const {
    return random({kRank, in}, fmt::format("{}.{}.a", layer, name));
  }
  Matrix b(int64_t layer, const std::string& name, int64_t out) const {
    return random({out, kRank}, fmt::format("{}.{}.b", layer, name));
  }

  MadeAdapter peft() const {
    MadeAdapter adapter;
    adapter.config = {{"peft_type", "LORA"}, {"r", kRank}, {"lora_alpha", 8}};
    for (int64_t l = 0; l < 2; ++l) {
      const auto add = [&](const std::string& module, const Matrix& a, const Matrix& b) {
        const std::string name = fmt::format("model.layers.{}.{}", l, module);
        adapter.tensors[name + ".lora_A.weight"] = a;
        adapter.tensors[name + ".lora_B.weight"] = b;
      };
      add("self_attn.q_proj", a(l, "qkv", 36), b(l, "q", 36));
      add("self_attn.k_proj", a(l, "qkv", 36), b(l, "k", 12));
      add("self_attn.v_proj", a(l, "qkv", 36), b(l, "v", 12));
      add("self_attn.o_proj", a(l, "o", 36), b(l, "o", 36));
      add("mlp.gate_proj", a(l, "fc1", 36), b(l, "gate", 72));
      add("mlp.up_proj", a(l, "fc1", 36), b(l, "up", 72));
      add("mlp.down_proj", a(l, "fc2", 72), b(l, "fc2", 36));
    }
    return adapter;
  }

  RankTensors megatron(const MegatronRank& rank, int64_t tensor, int64_t pipeline) const {
    RankTensors tensors;
    for (int64_t local = 0; local < 2 / pipeline; ++local) {
      const int64_t l = rank.pipeline * 2 / pipeline + local;
      const auto add = [&](const std::string& module, const Matrix& a, const Matrix& b) {
        const std::string name = fmt::format("decoder.layers.{}.{}", local, module);
        tensors[name + ".lora_A.default.weight"] = a;
        tensors[name + ".lora_B.default.weight"] = b;
      };
      std::vector<Matrix> groups;  // three heads, a key, a value
      for (int64_t g = rank.tensor * 2 / tensor; g < (rank.tensor + 1) * 2 / tensor; ++g) {
        groups.push_back(rows(b(l, "q", 36), g * 18, 18));
        groups.push_back(rows(b(l, "k", 12), g * 6, 6));
        groups.push_back(rows(b(l, "v", 12), g * 6, 6));
      }
      add("self_attention.linear_qkv", a(l, "qkv", 36), stacked(groups));
      const int64_t h = 36 / tensor, f = 72 / tensor;
      add("self_attention.linear_proj", columns(a(l, "o", 36), rank.tensor * h, h), b(l, "o", 36));
      add("mlp.linear_fc1", a(l, "fc1", 36),
          stacked({rows(b(l, "gate", 72), rank.tensor * f, f),
                   rows(b(l, "up", 72), rank.tensor * f, f)}));
      add("mlp.linear_fc2", columns(a(l, "fc2", 72), rank.tensor * f, f), b(l, "fc2", 36));
    }
    return tensors;
  }
};

fs::path golden() { return testing::source_path("tests/golden/models/llama2"); }

class Folders {
 public:
  explicit Folders(const MegatronLayout& layout = {}) : layout_(layout) {
    Dense().peft().write(peft());
    write_megatron(*open_model(golden()), place_ / "base", {.layout = layout}, {});
  }
  using Edit = std::function<void(const MegatronRank& rank, RankTensors& tensors)>;
  fs::path lora(const WriteOptions& options = {}, const Edit& edit = {}) const {
    const fs::path to = place_ / fmt::format("lora{}", ++count_);
    write_lora(place_ / "base", to, options, [&](const MegatronRank& rank) {
      RankTensors tensors = Dense().megatron(rank, layout_.tensor, layout_.pipeline);
      if (edit) edit(rank, tensors);
      return tensors;
    });
    return to;
  }
  fs::path base() const { return place_ / "base"; }
  fs::path peft() const { return place_ / "peft"; }
  fs::path operator/(const std::string& name) const { return place_ / name; }

 private:
  testing::TemporaryFolder place_;
  MegatronLayout layout_;
  mutable int count_ = 0;
};

constexpr std::pair<int64_t, int64_t> kLayouts[] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}};

TEST(MegatronAdapter, opens_as_the_merged_model) {
  for (const auto& [tensor, pipeline] : kLayouts) {
    const Folders folders({.tensor = tensor, .pipeline = pipeline});
    const auto expected = open_model(golden(), {.adapter = folders.peft()});
    const auto merged = open_model(folders.lora());
    EXPECT_TRUE(merged->unused().empty());
    EXPECT_GT(verify(*expected, *merged).elements, 0U) << tensor << " " << pipeline;
    EXPECT_THROW(verify(*open_model(golden()), *merged), CheckpointError);
  }
}

TEST(MegatronAdapter, without_its_base_is_merged_into_any_form_of_it) {
  for (const auto& [tensor, pipeline] : kLayouts) {
    const Folders folders({.tensor = tensor, .pipeline = pipeline});
    const fs::path lora = folders.lora({.base = false});
    write_gguf(*open_model(golden()), folders / "model.gguf", {}, {});
    const auto expected = open_model(golden(), {.adapter = folders.peft()});
    for (const fs::path& base : {golden(), folders.base(), folders / "model.gguf"}) {
      EXPECT_NO_THROW(verify(*expected, *open_model(base, {.adapter = lora}))) << base;
    }
    EXPECT_THROW(open_model(lora), CheckpointError);
  }
}

MadeAdapter read_peft(const fs::path& folder) {
  MadeAdapter adapter;
  adapter.config =
      parse_ordered_json(read_file(folder / "adapter_config.json", FileRole::kCheckpoint), "test",
                         FileRole::kCheckpoint);
  const auto source = open_adapter_tensors(folder).source;
  for (const formats::TensorSpec& tensor : source->tensors()) {
    adapter.tensors[tensor.name.substr(kAdapterPrefix.size())] = {tensor.shape,
                                                                  float_values(*source, tensor)};
  }
  return adapter;
}

void expect_same(const MadeAdapter& expected, const MadeAdapter& got) {
  ASSERT_EQ(expected.tensors.size(), got.tensors.size());
  for (const auto& [name, matrix] : expected.tensors) {
    ASSERT_TRUE(got.tensors.contains(name)) << name;
    EXPECT_EQ(matrix.shape, got.tensors.at(name).shape) << name;
    EXPECT_EQ(matrix.values, got.tensors.at(name).values) << name;
  }
}

TEST(MegatronAdapter, written_as_pefts_is_pefts) {
  for (const auto& [tensor, pipeline] : kLayouts) {
    const Folders folders({.tensor = tensor, .pipeline = pipeline});
    for (const bool with_base : {true, false}) {
      const auto adapter = open_megatron_adapter(folders.lora({.base = with_base}), {});
      const fs::path out = folders / fmt::format("out{}", with_base);
      write_peft_adapter(adapter, out, {}, {});
      const MadeAdapter got = read_peft(out);
      expect_same(Dense().peft(), got);
      EXPECT_EQ(got.config["target_modules"],
                OrderedJson(
                    {"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"}));
      EXPECT_EQ(got.config["r"], kRank);
      EXPECT_EQ(got.config["lora_alpha"], 8);
      EXPECT_NO_THROW(verify_peft_adapter(adapter, out));
      EXPECT_NO_THROW(verify(*open_model(golden(), {.adapter = folders.peft()}),
                             *open_model(golden(), {.adapter = out})));
    }
  }
}

TEST(MegatronAdapter, of_some_layers_names_these) {
  const Folders folders;
  const auto only = [](const MegatronRank&, RankTensors& tensors) {
    std::erase_if(tensors, [](const auto& item) {
      return item.first.find("layers.1.mlp") != std::string::npos;
    });
  };
  const auto adapter = open_megatron_adapter(folders.lora({}, only), {});
  EXPECT_EQ(adapter.config["target_modules"],
            OrderedJson({"k_proj", "model.layers.0.mlp.down_proj", "model.layers.0.mlp.gate_proj",
                         "model.layers.0.mlp.up_proj", "o_proj", "q_proj", "v_proj"}));
}

TEST(MegatronAdapter, takes_the_scale_that_the_arguments_lack) {
  const Folders folders;
  const fs::path lora = folders.lora({.alpha = {}, .r = {}});
  EXPECT_THROW(open_model(lora), ConfigError);
  EXPECT_NO_THROW(verify(*open_model(golden(), {.adapter = folders.peft()}),
                         *open_model(lora, {.lora_alpha = 8})));
  EXPECT_THROW(verify(*open_model(golden(), {.adapter = folders.peft()}),
                      *open_model(lora, {.lora_alpha = 16})),
               CheckpointError);
  EXPECT_THROW(open_model(folders.lora(), {.lora_alpha = 16}), ConfigError);
}

TEST(MegatronAdapter, what_does_not_belong_is_refused_by_name) {
  const Folders folders({.tensor = 2});
  const std::string fc1 = "decoder.layers.1.mlp.linear_fc1", a = ".lora_A.default.weight",
                    b = ".lora_B.default.weight";
  const auto on_second = [&](const std::function<void(RankTensors&)>& edit) {
    return refusal([&] {
      open_model(folders.lora({}, [&](const MegatronRank& rank, RankTensors& tensors) {
        if (rank.tensor == 1) edit(tensors);
      }));
    });
  };
  const std::pair<std::string, std::string> cases[] = {
      {refusal([&] { open_model(folders.lora({.r = 4})); }), "expected rank 4 as args.lora_r says"},
      {on_second([&](auto& x) { x.at(fc1 + a).values[5] += 1; }), "alike on all ranks"},
      {on_second([&](auto& x) { x.at("decoder.layers.0.mlp.linear_fc2" + b).values[0] += 1; }),
       "alike on all ranks"},
      {on_second([&](auto& x) { x.erase(fc1 + b); }), "linear_fc1.lora_B"},
      {on_second([&](auto& x) {
         x[fc1 + b] = testing::filled({4, kRank}, 1);
       }),
       "of shape"},
      {on_second([&](auto& x) {
         x[fc1 + a] = testing::filled({2, 36}, 1);
       }),
       "of shape"},
      {on_second([&](auto& x) { x["decoder.layers.9.mlp.linear_fc1" + a] = x.at(fc1 + a); }),
       "layers.9"},
      {on_second([&](auto& x) { x["embedding.word_embeddings" + a] = x.at(fc1 + a); }),
       "word_embeddings"},
      {on_second(
           [&](auto& x) { x[fc1 + ".lora_magnitude_vector.default.weight"] = x.at(fc1 + a); }),
       "lora_magnitude_vector"},
      {on_second(
           [&](auto& x) { x["output_layer.modules_to_save.default.weight"] = x.at(fc1 + a); }),
       "modules_to_save"},
      {refusal([&] { open_megatron_adapter(folders.base(), {}); }), "found none"},
      {refusal([&] { open_model(folders.lora({.base = false})); }), "an adapter alone"},
      {refusal([&] {
         open_model(testing::source_path("tests/golden/models/qwen3"),
                    {.adapter = folders.lora({.base = false})});
       }),
       "expected"},
  };
  for (const auto& [message, reason] : cases) {
    EXPECT_NE(message.find(reason), std::string::npos) << reason << ": " << message;
  }
}

// Latent attention's down projections are one tensor that all ranks hold; experts lie on ranks of
// their own.
TEST(MegatronAdapter, of_latent_attention_and_single_experts_is_taken_apart) {
  const testing::TemporaryFolder place;
  const auto model =
      testing::made_model(testing::small_model("deepseek_v3"));  // layer 1 has 8 experts
  const MegatronLayout layout{.tensor = 2, .expert = 2, .names = MegatronNames::kMindSpeed};
  write_megatron(*model, place / "base", {.layout = layout}, {});
  MadeAdapter expected;
  const auto expect = [&](const std::string& module, const Matrix& a, const Matrix& b) {
    expected.tensors[module + ".lora_A.weight"] = a;
    expected.tensors[module + ".lora_B.weight"] = b;
  };
  const Matrix down_a = random({kRank, 32}, "down"), q_b = random({24, kRank}, "q"),
               kv_b = random({20, kRank}, "kv");
  expect("model.layers.0.self_attn.q_a_proj", down_a, q_b);
  expect("model.layers.0.self_attn.kv_a_proj_with_mqa", down_a, kv_b);
  const auto expert_a = [](int64_t e) { return random({kRank, 32}, fmt::format("{} a", e)); };
  const auto gate_b = [](int64_t e) { return random({20, kRank}, fmt::format("{} gate", e)); };
  const auto up_b = [](int64_t e) { return random({20, kRank}, fmt::format("{} up", e)); };
  for (int64_t e = 0; e < 8; ++e) {
    const std::string name = fmt::format("model.layers.1.mlp.experts.{}.", e);
    expect(name + "gate_proj", expert_a(e), gate_b(e));
    expect(name + "up_proj", expert_a(e), up_b(e));
  }
  write_lora(place / "base", place / "lora", {.base = false}, [&](const MegatronRank& rank) {
    RankTensors tensors;
    const auto add = [&](const std::string& module, const Matrix& a, const Matrix& b) {
      testing::add_lora(tensors, module, a, b);
    };
    add("decoder.layers.0.self_attention.linear_qkv", down_a, stacked({q_b, kv_b}));
    for (int64_t local = 0; local < 4; ++local) {
      const int64_t e = rank.expert * 4 + local;
      add(fmt::format("decoder.layers.1.mlp.experts.local_experts.{}.linear_fc1", local),
          expert_a(e),
          stacked({rows(gate_b(e), rank.tensor * 10, 10), rows(up_b(e), rank.tensor * 10, 10)}));
    }
    return tensors;
  });
  const auto adapter = open_megatron_adapter(place / "lora", {});
  write_peft_adapter(adapter, place / "out", {}, {});
  expect_same(expected, read_peft(place / "out"));
}

TEST(MegatronAdapter, of_what_pefts_form_has_no_place_for_is_refused) {
  const testing::TemporaryFolder place;
  const auto model = testing::made_model(testing::small_model("deepseek_v3"));
  const auto opened = [&](const char* folder, MegatronLayout layout,
                          const std::map<std::string, std::pair<int64_t, int64_t>>& modules) {
    layout.names = MegatronNames::kMindSpeed;
    const fs::path base = place / (std::string(folder) + "_base"), to = place / folder;
    write_megatron(*model, base, {.layout = layout}, {});
    write_lora(base, to, {}, [&](const MegatronRank&) {
      RankTensors tensors;
      for (const auto& [name, size] : modules) {
        tensors[name + ".lora_A.default.weight"] = random({kRank, size.second}, name);
        tensors[name + ".lora_B.default.weight"] = random({size.first, kRank}, name);
      }
      return tensors;
    });
    return refusal([&] { open_model(to); });
  };
  EXPECT_NE(opened("grouped", {.experts = ExpertStorage::kGrouped},
                   {{"decoder.layers.1.mlp.experts.weight1", {8, 32}}})
                .find("experts in one tensor have no adapters"),
            std::string::npos);
  EXPECT_NE(opened("split", {.split_latent_projections = true},
                   {{"decoder.layers.0.self_attention.linear_qk_nope", {32, 24}},
                    {"decoder.layers.0.self_attention.linear_qk_rope", {16, 24}}})
                .find("--mla-mm-split"),
            std::string::npos);
}

}  // namespace
}  // namespace qianli::convert
