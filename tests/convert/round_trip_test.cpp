// Hugging Face to Megatron and back, bit for bit, in many layouts.
#include <gtest/gtest.h>

#include <filesystem>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

std::string weights(const fs::path& folder) {
  return read_file(folder / "model.safetensors", FileRole::kCheckpoint);
}

struct Case {
  const char* name;
  const char* model;
  MegatronLayout layout;
};

class RoundTrip : public ::testing::TestWithParam<Case> {};

TEST_P(RoundTrip, gives_the_same_file) {
  const testing::TemporaryFolder folder;
  const fs::path source = testing::source_path("tests/golden/models") / GetParam().model;
  write_megatron(*open_model(source), folder.path() / "megatron", {.layout = GetParam().layout},
                 {});
  const auto megatron = open_model(folder.path() / "megatron");
  EXPECT_TRUE(megatron->reader->unused().empty()) << megatron->reader->unused().front();
  write_hugging_face(*megatron, folder.path() / "back", {}, {});
  EXPECT_EQ(weights(source), weights(folder.path() / "back"));
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, RoundTrip,
    ::testing::Values(
        Case{"whole", "llama2", {}}, Case{"cut", "llama2", {.tensor = 2, .pipeline = 2}},
        Case{"padded", "qwen2_yarn", {.tensor = 2, .vocab_divisor = 64}},
        Case{"tied_copy", "qwen2", {.tensor = 2, .pipeline = 2}},
        Case{"uneven", "mistral_window", {.pipeline = 2, .layers_per_stage = {1, 2}}},
        Case{"noop", "qwen3", {.pipeline = 2, .noop_layers = {1, 3}}},
        Case{"virtual_stages", "qwen3", {.layers_per_virtual_stage = 1}},
        Case{"folded", "qwen3", {.dual_pipe_v = true}},
        Case{"fused_norms", "llama1", {.tensor = 4, .fused_norms = true}},
        Case{"learned_positions", "gpt2", {.tensor = 4}},
        Case{"mindspeed", "qwen3", {.tensor = 2, .names = MegatronNames::kMindSpeed}},
        Case{"legacy", "gpt2", {.tensor = 2, .pipeline = 2, .names = MegatronNames::kLegacy}}),
    [](const auto& info) { return info.param.name; });

TEST(Verify, finds_the_parameter_that_changed) {
  const testing::TemporaryFolder folder;
  const auto source = open_model(testing::source_path("tests/golden/models/llama2"));
  write_megatron(*source, folder / "megatron", {.layout = {.tensor = 2}}, {});
  const Proof proof = verify(*source, *open_model(folder / "megatron"));
  EXPECT_EQ(proof.parameters, source->table.size());
  EXPECT_EQ(static_cast<int64_t>(proof.elements), model::parameter_count(source->spec));

  write_hugging_face(*source, folder / "other", {}, {});
  std::string bytes = weights(folder / "other");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file_atomically(folder / "other" / "model.safetensors", bytes, FileRole::kCheckpoint);
  EXPECT_THROW(verify(*source, *open_model(folder / "other")), CheckpointError);
  const auto another = open_model(testing::source_path("tests/golden/models/llama1"));
  EXPECT_THROW(verify(*source, *another), CheckpointError);
}

TEST(Convert, changes_the_type_of_weights) {
  const testing::TemporaryFolder folder;
  const fs::path source = testing::source_path("tests/golden/models/llama2");
  write_megatron(*open_model(source), folder.path() / "megatron",
                 {.dtype = formats::Dtype::kF64, .layout = {.tensor = 2}}, {});
  write_hugging_face(*open_model(folder.path() / "megatron"), folder.path() / "back",
                     {.dtype = formats::Dtype::kF32}, {});
  EXPECT_EQ(weights(source), weights(folder.path() / "back"));
}

TEST(Convert, leaves_what_exists_alone) {
  const testing::TemporaryFolder folder;
  const fs::path source = testing::source_path("tests/golden/models/llama2");
  EXPECT_THROW(write_hugging_face(*open_model(source), folder.path(), {}, {}), CheckpointError);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Convert, wants_to_know_the_model) {
  const testing::TemporaryFolder folder;
  EXPECT_THROW(open_model(folder.path()), CheckpointError);
  EXPECT_THROW(open_model(folder.path() / "none"), CheckpointError);
}

}  // namespace
}  // namespace qianli::convert
