// Every family to every form and back, bit for bit, or the sentence that says why not.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/write_model.h"
#include "tests/convert/made_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

using Write = void (*)(const ModelSource&, const fs::path&, const TargetOptions&,
                       const ProgressFunction&);

struct Form {
  const char* name;
  Write write;
  MegatronNames names = MegatronNames::kCore;
  std::map<std::string, std::string> refused;  // by family: a part of the sentence
};

constexpr const char* kExperts = "with experts, which legacy names do not have";
constexpr const char* kLatent = "with latent attention, which legacy names do not have";
constexpr const char* kQkNorms = "norms of queries and keys, which legacy names do not have";
constexpr const char* kHeadGate = "a gate for each head, which Megatron has no tensor for";
constexpr const char* kCompressed = "compressed keys, which Megatron has no tensors for";
constexpr const char* kSandwich = "norms behind attention and MLP, which legacy names do not have";

std::vector<Form> forms() {
  std::map<std::string, std::string> legacy = {{"qwen3", kQkNorms},
                                               {"gemma3_text", kQkNorms},
                                               {"cohere", kQkNorms},
                                               {"longcat_flash", "shortcut experts"},
                                               {"hunyuan_large", "shared between layers"},
                                               {"gemma2", kSandwich},
                                               {"glm4", kSandwich},
                                               {"minicpm3", kLatent},
                                               {"plm", kLatent},
                                               {"mamba2", "state-space layers"}};
  for (const char* name : {"mixtral", "qwen2_moe", "qwen3_moe", "qwen3_next", "glm4_moe", "phimoe",
                           "deepseek_v2", "deepseek_v2, no query rank", "deepseek_v3",
                           "deepseek_v32", "glm_moe_dsa", "dbrx", "gpt_oss", "minimax_m2", "hy_v3",
                           "hunyuan_v1_moe", "bailing_moe_v2", "grok1", "minicpm_moe"}) {
    legacy[name] = kExperts;
  }
  legacy["step3p5"] = kHeadGate;
  legacy["deepseek_v4"] = kCompressed;
  return {{"qianli", write_checkpoint, {}, {}},
          {"mcore",
           write_megatron,
           MegatronNames::kCore,
           {{"longcat_flash", "shortcut experts"},
            {"hunyuan_large", "shared between layers"},
            {"step3p5", kHeadGate},
            {"deepseek_v4", kCompressed}}},
          {"mindspeed",
           write_megatron,
           MegatronNames::kMindSpeed,
           {{"step3p5", kHeadGate}, {"deepseek_v4", kCompressed}}},
          {"legacy", write_megatron, MegatronNames::kLegacy, legacy},
          {"mindspore", write_mindspore, {}, {}}};
}

// Two ranks along every axis that the model can be cut along.
MegatronLayout cut(const model::ModelSpec& spec, MegatronNames names) {
  const auto even = [](int64_t size) { return size % 2 == 0; };
  MegatronLayout layout{.names = names};
  const bool recurrent = spec.gated_delta_net || spec.mamba2;
  const bool groups = spec.latent_attention || even(spec.num_query_groups);
  if (!recurrent && even(spec.num_attention_heads) && groups) layout.tensor = 2;
  const int64_t unit = own_layers(spec) * spec.key_value_share_factor;
  if (even(spec.num_layers / unit)) layout.pipeline = 2;
  if (spec.moe && even(spec.moe->num_experts)) layout.expert = 2;
  return layout;
}

// Hundreds of small files, each flushed to its disk: memory is a quicker one.
fs::path quick_place() {
  return fs::is_directory("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path();
}

class Families : public ::testing::TestWithParam<size_t> {};

TEST_P(Families, go_there_and_back) {
  const Form form = forms()[GetParam()];
  size_t cut_models = 0;
  for (const testing::NamedSpec& model : testing::small_models()) {
    SCOPED_TRACE(model.name);
    const testing::TemporaryFolder folder(quick_place());
    write_hugging_face(*testing::made_model(model.spec), folder / "source", {}, {});
    const auto source = open_model(folder / "source");
    const TargetOptions options{.layout = cut(model.spec, form.names)};
    cut_models += options.layout.tensor * options.layout.pipeline * options.layout.expert > 1;
    if (const auto refusal = form.refused.find(model.name); refusal != form.refused.end()) {
      try {
        form.write(*source, folder / "there", options, {});
        ADD_FAILURE() << "expected a refusal";
      } catch (const ConfigError& error) {
        EXPECT_NE(std::string(error.what()).find(refusal->second), std::string::npos)
            << error.what();
      }
      EXPECT_FALSE(fs::exists(folder / "there"));
      continue;
    }
    form.write(*source, folder / "there", options, {});
    const auto there = open_model(folder / "there");
    EXPECT_TRUE(there->reader->unused().empty()) << there->reader->unused().front();
    write_hugging_face(*there, folder / "back", {}, {});
    for (const char* file : {"model.safetensors", "config.json"}) {
      EXPECT_EQ(read_file(folder / "source" / file, FileRole::kCheckpoint),
                read_file(folder / "back" / file, FileRole::kCheckpoint));
    }
  }
  EXPECT_GT(cut_models, 30u);
}

INSTANTIATE_TEST_SUITE_P(Forms, Families, ::testing::Range(size_t{0}, forms().size()),
                         [](const auto& info) { return forms()[info.param].name; });

}  // namespace
}  // namespace qianli::convert
