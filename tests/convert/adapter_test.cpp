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
#include "qianli/convert/write_model.h"
#include "qianli/formats/safetensors_folder.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::Dtype;

constexpr const char* kPrefix = "base_model.model.";
constexpr const char* kModule = "model.layers.0.self_attn.q_proj";

struct Matrix {
  std::vector<int64_t> shape;
  std::vector<float> values;
  float at(int64_t row, int64_t column) const {
    return values[static_cast<size_t>(row * shape[1] + column)];
  }
};

Matrix filled(std::vector<int64_t> shape, int seed) {
  Matrix matrix{std::move(shape), {}};
  int64_t count = 1;
  for (const int64_t size : matrix.shape) count *= size;
  for (int64_t i = 0; i < count; ++i) {
    // Small multiples of 1/8: sums and products of these are exact in any order.
    matrix.values.push_back(static_cast<float>((i * 7 + seed) % 11 - 5) / 8);
  }
  return matrix;
}

struct Adapter {
  OrderedJson config = {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 4}};
  std::map<std::string, Matrix> tensors;  // without the prefix

  void add(const std::string& module, int64_t out, int64_t in, int64_t rank = 2) {
    tensors[module + ".lora_A.weight"] = filled({rank, in}, 1);
    tensors[module + ".lora_B.weight"] = filled({out, rank}, 2);
  }
  void write(const fs::path& folder) const {
    create_folder(folder, FileRole::kCheckpoint);
    write_file_atomically(folder / "adapter_config.json", config.dump(), FileRole::kCheckpoint);
    std::vector<formats::TensorSpec> specs;
    for (const auto& [name, matrix] : tensors) {
      specs.push_back({kPrefix + name, Dtype::kF32, matrix.shape});
    }
    formats::write_sharded(
        folder, specs, UINT64_MAX,
        [&](const auto& spec, const auto& sink) {
          sink(std::as_bytes(
              std::span(tensors.at(spec.name.substr(std::string(kPrefix).size())).values)));
        },
        "adapter_model");
  }
};

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
      {edited([](auto& x) { x.config["target_parameters"] = {"a"}; }), "target_parameters"},
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

TEST(Adapter, wants_a_hugging_face_folder) {
  const testing::TemporaryFolder place;
  const auto base = testing::source_path("tests/golden/models/llama2");
  write_megatron(*open_model(base), place / "megatron", {}, {});
  of_query().write(place / "adapter");
  EXPECT_THROW(open_model(place / "megatron", {.adapter = place / "adapter"}), ConfigError);
}

}  // namespace
}  // namespace qianli::convert
