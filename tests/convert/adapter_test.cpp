// PEFT adapters merged into a folder. tools/reference/check_adapter.py compares with PEFT itself.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/adapter/config.h"
#include "qianli/convert/adapter/tensors.h"
#include "qianli/convert/model_source.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"
#include "tests/convert/made_adapter.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::Dtype;

constexpr const char* kModule = "model.layers.0.self_attn.q_proj";

using Adapter = testing::MadeAdapter;
using testing::filled;
using testing::Matrix;

class Merge {
 public:
  explicit Merge(const Adapter& adapter, const std::string& golden = "llama2")
      : base_(testing::source_path("tests/golden/models/" + golden)) {
    adapter.write(place_ / "adapter");
    model_ = open_model(base_, {.adapter = place_ / "adapter"});
    write_hugging_face(*model_, place_ / "out", {}, {});
  }
  Matrix before(const std::string& name) const { return read(base_, name); }
  Matrix after(const std::string& name) const { return read(place_ / "out", name); }

 private:
  static Matrix read(const fs::path& folder, const std::string& name) {
    const auto source = formats::open_tensor_source(folder);
    return {source->at(name).shape, float_values(*source, source->at(name))};
  }
  testing::TemporaryFolder place_;
  fs::path base_;
  std::unique_ptr<ModelSource> model_;
};

float product(const Adapter& adapter, const std::string& module, int64_t out, int64_t in) {
  const Matrix& a = adapter.tensors.at(module + ".lora_A.weight");
  const Matrix& b = adapter.tensors.at(module + ".lora_B.weight");
  float sum = 0;
  for (int64_t k = 0; k < a.shape[0]; ++k) sum += b.at(out, k) * a.at(k, in);
  return sum;
}

constexpr int64_t kHidden = 36;  // of the golden model; not a multiple of a vector

Adapter of_query() {
  const auto base = formats::open_tensor_source(testing::source_path("tests/golden/models/llama2"));
  const auto& shape = base->at(std::string(kModule) + ".weight").shape;
  Adapter adapter;
  adapter.add(kModule, shape[0], shape[1]);
  return adapter;
}

TEST(Adapter, adds_the_scaled_product) {
  for (const bool rslora : {false, true}) {
    Adapter adapter = of_query();
    adapter.config["use_rslora"] = rslora;
    adapter.config["alpha_pattern"] = {{"k_proj", 100}, {R"(layers\.0\..*q_proj)", 16}};
    const Merge merge(adapter);
    const std::string name = std::string(kModule) + ".weight";
    const Matrix before = merge.before(name), after = merge.after(name);
    const auto scale = static_cast<float>(rslora ? 16 / std::sqrt(2.0) : 8.0);
    for (int64_t r = 0; r < before.shape[0]; ++r) {
      for (int64_t c = 0; c < before.shape[1]; ++c) {
        const float added = product(adapter, kModule, r, c) * scale;
        ASSERT_EQ(after.at(r, c), before.at(r, c) + added) << r << ", " << c;
      }
    }
    const std::string other = "model.layers.1.self_attn.q_proj.weight";
    EXPECT_EQ(merge.before(other).values, merge.after(other).values);
  }
}

TEST(Adapter, of_low_rank_with_magnitudes_scales_every_output) {
  Adapter adapter = of_query();
  adapter.config["use_dora"] = true;
  const int64_t out = adapter.tensors.at(std::string(kModule) + ".lora_B.weight").shape[0];
  Matrix magnitude{{out}, std::vector<float>(static_cast<size_t>(out), 2.5F)};
  adapter.tensors[std::string(kModule) + ".lora_magnitude_vector"] = magnitude;
  const Matrix after = Merge(adapter).after(std::string(kModule) + ".weight");
  for (int64_t r = 0; r < after.shape[0]; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < after.shape[1]; ++c) squares += std::pow(after.at(r, c), 2);
    EXPECT_NEAR(std::sqrt(squares), 2.5, 1e-5);
  }
}

TEST(Adapter, of_conv1d_is_added_transposed) {
  const std::string module = "transformer.h.0.attn.c_proj";  // square: shapes do not tell
  const auto base = formats::open_tensor_source(testing::source_path("tests/golden/models/gpt2"));
  const int64_t hidden = base->at(module + ".weight").shape[0];
  Adapter adapter;
  adapter.add(module, hidden, hidden);
  const Merge merge(adapter, "gpt2");
  const Matrix before = merge.before(module + ".weight"), after = merge.after(module + ".weight");
  for (int64_t in = 0; in < hidden; ++in) {
    for (int64_t out = 0; out < hidden; ++out) {
      ASSERT_EQ(after.at(in, out), before.at(in, out) + product(adapter, module, out, in) * 2);
    }
  }
}

TEST(Adapter, whole_tensors_take_the_place_of_the_base) {
  Adapter adapter;
  const auto base = formats::open_tensor_source(testing::source_path("tests/golden/models/llama2"));
  adapter.tensors["lm_head.weight"] = filled(base->at("lm_head.weight").shape, 5);
  const Merge merge(adapter);
  EXPECT_EQ(merge.after("lm_head.weight").values, adapter.tensors["lm_head.weight"].values);
}

std::string refusal(const Adapter& adapter) {
  try {
    const Merge merge(adapter);
  } catch (const Error& error) {
    return error.what();
  }
  return "merged";
}

TEST(Adapter, what_does_not_belong_is_refused_by_name) {
  const auto edited = [](const std::function<void(Adapter&)>& edit) {
    Adapter adapter = of_query();
    edit(adapter);
    return refusal(adapter);
  };
  const std::string a = std::string(kModule) + ".lora_A.weight";
  const std::pair<std::string, std::string> cases[] = {
      {edited([](auto& x) { x.config["peft_type"] = "LOHA"; }), "got \"LOHA\""},
      {edited([](auto& x) { x.config["init_lora_weights"] = "pissa"; }), "init_lora_weights"},
      {edited([](auto& x) { x.config["target_parameters"] = {"a"}; }), "tensor of all experts"},
      {edited([](auto& x) { x.config["target_parameters"] = {1}; }), "target_parameters"},
      {edited([](auto& x) { x.config["r"] = 0; }), "'r'"},
      {edited([](auto& x) { x.config["r"] = 3; }), "expected rank 3"},
      {edited([](auto& x) { x.config["use_dora"] = true; }), "lora_magnitude_vector"},
      {edited([](auto& x) {
         x.config["rank_pattern"] = {{"(", 2}};
       }),
       "rank_pattern"},
      {edited([](auto& x) {
         x.config["rank_pattern"] = {{"((.+)+)+[^a-z_.0-9]", 2}};
       }),
       "quickly"},
      {edited([](auto& x) {
         for (int i = 0; i < 65; ++i) x.config["alpha_pattern"][fmt::format("x{}|y", i)] = 1;
       }),
       "64 regular expressions"},
      {edited([&](auto& x) { x.tensors.erase(a); }), "expected lora_A and lora_B"},
      {edited([&](auto& x) {
         x.tensors[a] = filled({2, 7}, 1);
       }),
       "expected shape"},
      {edited([&](auto& x) {
         x.tensors[a] = filled({3, kHidden}, 1);
       }),
       "[rank, in]"},
      {edited([](auto& x) { x.add("model.layers.99.mlp.up_proj", 4, 4); }), "found none"},
      {edited([](auto& x) { x.tensors["model.norm.weight"] = filled({3}, 1); }), "expected shape"},
      {edited([](auto& x) { x.tensors["x.lora_C.weight"] = filled({3}, 1); }), "lora_magnitude"},
  };
  for (const auto& [message, reason] : cases) {
    EXPECT_NE(message.find(reason), std::string::npos) << reason << ": " << message;
  }
}

// GGUF weaves the rows of queries, Megatron all of linear_qkv; MindSpore has names of its own.
TEST(Adapter, is_merged_into_a_model_of_any_form) {
  const testing::TemporaryFolder place;
  const auto base = testing::source_path("tests/golden/models/llama2");
  Adapter adapter = of_query();
  for (const char* end : {"self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"}) {
    const std::string module = std::string("model.layers.1.") + end;
    const auto shape = formats::open_tensor_source(base)->at(module + ".weight").shape;
    adapter.add(module, shape[0], shape[1]);
  }
  adapter.tensors["lm_head.weight"] = filled({97, kHidden}, 5);
  adapter.write(place / "adapter");
  const auto expected = open_model(base, {.adapter = place / "adapter"});
  const auto plain = open_model(base);
  write_megatron(*plain, place / "megatron", {.layout = {.tensor = 2, .pipeline = 2}}, {});
  write_gguf(*plain, place / "model.gguf", {}, {});
  write_mindspore(*plain, place / "mindspore", {}, {});
  for (const char* name : {"megatron", "model.gguf", "mindspore"}) {
    const auto model = open_model(place / name, {.adapter = place / "adapter"});
    EXPECT_TRUE(model->unused().empty());
    EXPECT_NO_THROW(verify(*expected, *model)) << name;
    EXPECT_THROW(verify(*plain, *model), CheckpointError) << name;
  }
}

TEST(Adapter, finds_modules_in_any_spelling_of_the_family) {
  for (const char* module : {"layers.0.self_attn.q_proj", kModule}) {
    Adapter adapter = of_query();
    const std::string a = std::string(kModule) + ".lora_A.weight",
                      b = std::string(kModule) + ".lora_B.weight";
    const Matrix before = Merge(adapter).after(std::string(kModule) + ".weight");
    adapter.tensors = {{std::string(module) + ".lora_A.weight", adapter.tensors.at(a)},
                       {std::string(module) + ".lora_B.weight", adapter.tensors.at(b)}};
    EXPECT_EQ(Merge(adapter).after(std::string(kModule) + ".weight").values, before.values);
  }
}

}  // namespace
}  // namespace qianli::convert
