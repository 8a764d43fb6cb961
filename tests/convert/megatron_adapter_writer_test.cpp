// PEFT's adapters told in Megatron's layers, and back. What stands in the layers is checked by the
// models that come out when it is merged.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/megatron/adapter.h"
#include "qianli/convert/megatron/adapter_origin.h"
#include "qianli/convert/megatron/tensors.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"
#include "tests/convert/made_lora.h"
#include "tests/convert/made_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using testing::kRank;
using testing::MadeAdapter;
using testing::random;
using testing::refusal;

// tests/golden/models/llama2: 2 layers, hidden size 36, 6 heads of size 6 in 2 groups, an MLP
// of 72.
fs::path golden() { return testing::source_path("tests/golden/models/llama2"); }

struct Linear {
  const char* name;
  int64_t out, in;
  const char* layer;  // of Megatron's
};
constexpr Linear kLinears[] = {
    {"self_attn.q_proj", 36, 36, "qkv"}, {"self_attn.k_proj", 12, 36, "qkv"},
    {"self_attn.v_proj", 12, 36, "qkv"}, {"self_attn.o_proj", 36, 36, "o"},
    {"mlp.gate_proj", 72, 36, "fc1"},    {"mlp.up_proj", 72, 36, "fc1"},
    {"mlp.down_proj", 36, 72, "fc2"}};

// Of all linear layers whose name `chosen` holds; with one A for each of Megatron's, or each its
// own.
MadeAdapter made(const std::string& chosen, bool shared) {
  MadeAdapter adapter;
  adapter.config = {{"peft_type", "LORA"},
                    {"r", kRank},
                    {"lora_alpha", 8},
                    {"lora_dropout", 0.05},
                    {"base_model_name_or_path", "some/model"}};
  for (int64_t l = 0; l < 2; ++l) {
    for (const Linear& linear : kLinears) {
      const std::string module = linear.name;
      if (chosen.find(module.substr(module.find('.') + 1)) == chosen.npos) continue;
      const std::string name = fmt::format("model.layers.{}.{}", l, module);
      const std::string a = fmt::format("{}.{}", l, shared ? linear.layer : linear.name);
      adapter.tensors[name + ".lora_A.weight"] = random({kRank, linear.in}, a);
      adapter.tensors[name + ".lora_B.weight"] = random({linear.out, kRank}, name);
    }
  }
  return adapter;
}

constexpr const char* kAll = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj";
const std::pair<const char*, bool> kAdapters[] = {
    {kAll, true}, {kAll, false}, {"q_proj v_proj", false}, {"o_proj down_proj", false}};

const MegatronLayout kLayouts[] = {
    {}, {.tensor = 2}, {.tensor = 2, .pipeline = 2}, {.pipeline = 2, .fused_norms = true}};

void write(const fs::path& peft, const fs::path& target, const MegatronLayout& layout) {
  write_megatron_adapter(peft, {.config = golden().string()}, target, {.layout = layout}, {});
}

TEST(MegatronAdapterWriter, comes_back_bit_for_bit) {
  for (const auto& [chosen, shared] : kAdapters) {
    for (const MegatronLayout& layout : kLayouts) {
      const testing::TemporaryFolder place;
      const MadeAdapter adapter = made(chosen, shared);
      adapter.write(place / "peft");
      write(place / "peft", place / "mcore", layout);
      EXPECT_EQ(verify_megatron_adapter(place / "peft", place / "mcore").parameters,
                adapter.tensors.size());
      write_peft_adapter(open_megatron_adapter(place / "mcore", {}), place / "back", {}, {});
      EXPECT_EQ(read_adapter_json(place / "back"), read_adapter_json(place / "peft"));
      const auto before = open_adapter_tensors(place / "peft").source;
      const auto after = open_adapter_tensors(place / "back").source;
      ASSERT_EQ(after->tensors().size(), before->tensors().size()) << chosen;
      for (const formats::TensorSpec& tensor : before->tensors()) {
        const formats::TensorSpec& found = after->at(tensor.name);
        EXPECT_EQ(found.shape, tensor.shape) << tensor.name;
        EXPECT_EQ(found.dtype, tensor.dtype) << tensor.name;
        EXPECT_EQ(float_values(*after, found), float_values(*before, tensor)) << tensor.name;
      }
    }
  }
}

// The adapter as Megatron has it, without what it says of PEFT's.
AdapterSource as_stored(const fs::path& folder, const model::ModelSpec& spec) {
  const RankFiles files = open_rank_files(folder / "iter_0000001");
  MegatronLayout layout = files.layout;
  read_names(files, spec, layout);
  const Table table = model::parameter_table(spec);
  const auto args = files.arguments();
  return megatron_adapter(
      table, megatron_tensors(spec, table, layout), megatron_ranks(layout), files.sources,
      {.rank = args.integer({"lora_r"}), .alpha = *args.number({"lora_alpha"})}, folder);
}

// What a run of Megatron would compute with it is what PEFT's adapter makes of the model.
TEST(MegatronAdapterWriter, is_the_same_product_in_megatrons_layers) {
  for (const auto& [chosen, shared] : kAdapters) {
    for (const MegatronLayout& layout : kLayouts) {
      const testing::TemporaryFolder place;
      made(chosen, shared).write(place / "peft");
      write(place / "peft", place / "mcore", layout);
      const auto expected = open_model(golden(), {.adapter = place / "peft"});
      const AdapterSource stored = as_stored(place / "mcore", expected->spec);
      const int64_t rank = stored.config.at("r").get<int64_t>();
      EXPECT_EQ(rank, shared || std::string(chosen)[0] == 'o' ? kRank
                      : std::string(chosen) == kAll           ? 3 * kRank
                                                              : 2 * kRank);
      const auto merged = with_adapter(open_model(golden()), as_peft(stored));
      EXPECT_GT(verify(*expected, *merged).elements, 0U) << chosen;
      EXPECT_THROW(verify(*open_model(golden()), *merged), CheckpointError);
      EXPECT_NO_THROW(verify(*expected, *open_model(golden(), {.adapter = place / "mcore"})));
    }
  }
}

// Once Megatron trained it, rows of A serve all modules of a layer: then there is no way back.
TEST(MegatronAdapterWriter, keeps_its_rank_where_it_was_trained_since) {
  const testing::TemporaryFolder place;
  made(kAll, false).write(place / "peft");
  write(place / "peft", place / "mcore", {});
  const AdapterSource stored =
      as_stored(place / "mcore", model::ModelSpec(open_model(golden())->spec));
  const ModulePlaces one = {{"model.layers.0.self_attn.q_proj", {.offset = 0, .rank = kRank}}};
  const OrderedJson config = read_adapter_json(place / "peft");
  // Other modules have numbers too: they would be lost.
  AdapterSource kept{stored.model, stored.tensors, stored.config};
  kept = as_it_was(std::move(kept), origin_text(config, one), "test");
  EXPECT_EQ(kept.tensors.size(), stored.tensors.size());
  EXPECT_EQ(kept.config, stored.config);
  const auto with = [&](const std::string& text) {
    return refusal([&] { as_it_was({stored.model, stored.tensors, stored.config}, text, "test"); });
  };
  EXPECT_NE(with("[]").find("expected an object"), std::string::npos);
  EXPECT_NE(with(origin_text(config, {{"nobody", {0, kRank}}})).find("nobody"), std::string::npos);
  const std::string far =
      origin_text(config, {{one.begin()->first, {.offset = 3 * kRank, .rank = kRank}}});
  EXPECT_NE(with(far).find("rows of the layer's A"), std::string::npos);
  EXPECT_NE(
      with(
          R"({"config": {"peft_type": "LORA"}, "modules": {"model.layers.0.self_attn.q_proj": [-1, 3]}})")
          .find("an offset and a rank"),
      std::string::npos);
}

TEST(MegatronAdapterWriter, refuses_what_megatron_has_no_place_for) {
  const auto message = [](const MadeAdapter& adapter, const std::string& config) {
    const testing::TemporaryFolder place;
    adapter.write(place / "peft");
    return refusal([&] {
      write_megatron_adapter(place / "peft", {.config = config}, place / "mcore", {}, {});
    });
  };
  const std::string base = golden().string();
  EXPECT_NE(message(made(kAll, false), "").find("--config"), std::string::npos);
  MadeAdapter adapter = made(kAll, false);
  adapter.config["alpha_pattern"] = {{"q_proj", 100}};
  EXPECT_NE(message(adapter, base).find("one scale"), std::string::npos);
  adapter = made(kAll, false);
  adapter.config["r"] = 7;
  EXPECT_NE(message(adapter, base).find("expected rank 7"), std::string::npos);
  adapter = made(kAll, false);
  adapter.add("model.layers.2.self_attn.q_proj", 36, 36, kRank);  // there are two layers
  EXPECT_NE(message(adapter, base).find("model.layers.2"), std::string::npos);
  adapter = made("q_proj", false);
  adapter.tensors["lm_head.weight"] = random({4, 36}, "head");
  EXPECT_NE(message(adapter, base).find("saved whole"), std::string::npos);
}

}  // namespace
}  // namespace qianli::convert
