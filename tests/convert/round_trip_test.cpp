// Hugging Face to Megatron and back, bit for bit, in many layouts.
#include <gtest/gtest.h>

#include <filesystem>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/safetensors.h"
#include "tests/convert/made_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using testing::weights;

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

// What a trainer saves: the model beside the optimizer, no config.json.
TEST(HuggingFaceNames, are_found_in_a_wrapper) {
  const testing::TemporaryFolder folder;
  const fs::path source = testing::source_path("tests/golden/models/llama2");
  const auto file = formats::SafetensorsFile::open(source / "model.safetensors");
  for (const std::string wrapper : {"", "model.", "module.", "state_dict."}) {
    std::vector<formats::TensorEntry> tensors = file.entries();
    for (formats::TensorEntry& tensor : tensors) tensor.name = wrapper + tensor.name;
    if (!wrapper.empty()) {
      tensors.push_back(tensors.front());
      tensors.back().name = "optimizer.state.0";
    }
    const fs::path saved = folder / ("saved" + wrapper + ".safetensors");
    formats::write_safetensors(saved, tensors);
    EXPECT_THROW(open_model(saved), CheckpointError);  // of which model?
    write_hugging_face(*open_model(saved, {.config = source.string()}), folder / ("back" + wrapper),
                       {}, {});
    EXPECT_EQ(weights(source), weights(folder / ("back" + wrapper)));
  }
}

TEST(Dtype, what_fp16_has_no_numbers_for_is_refused) {
  const testing::TemporaryFolder folder;
  const fs::path golden = testing::source_path("tests/golden/models/llama2");
  fs::create_directories(folder / "big");
  fs::copy_file(golden / "config.json", folder / "big/config.json");
  const auto file = formats::SafetensorsFile::open(golden / "model.safetensors");
  std::vector<formats::TensorEntry> tensors = file.entries();
  std::vector<float> big(static_cast<size_t>(tensors[0].num_elements()), 65504.0F);
  tensors[0].bytes = std::as_bytes(std::span(big));
  const auto write = [&](const std::string& name) {
    formats::write_safetensors(folder / "big/model.safetensors", tensors);
    write_hugging_face(*open_model(folder / "big"), folder / name, {.dtype = formats::Dtype::kF16},
                       {});
  };
  write("fits");
  fs::remove(folder / "big/model.safetensors");
  big.back() = -65520.0F;  // the first that is rounded to infinity
  try {
    write("refused");
    ADD_FAILURE() << "expected a refusal";
  } catch (const CheckpointError& error) {
    EXPECT_NE(std::string(error.what()).find(tensors[0].name), std::string::npos) << error.what();
  }
  EXPECT_FALSE(fs::exists(folder / "refused"));
}

TEST(HuggingFaceNames, others_are_told_apart_from_those_that_are_left_out) {
  const testing::TemporaryFolder folder;
  const fs::path golden = testing::source_path("tests/golden/models/llama2");
  fs::copy(golden, folder / "model");
  fs::remove(folder / "model/model.safetensors");
  const auto file = formats::SafetensorsFile::open(golden / "model.safetensors");
  std::vector<formats::TensorEntry> tensors = file.entries();
  for (const char* name : {"lm_head.bias", "model.layers.0.self_attn.rotary_emb.inv_freq"}) {
    tensors.push_back(file.entries().front());
    tensors.back().name = name;
  }
  formats::write_safetensors(folder / "model/model.safetensors", tensors);
  const auto model = open_model(folder / "model");
  ASSERT_EQ(model->unused().size(), 1u);
  EXPECT_NE(model->unused()[0].find("lm_head.bias"), std::string::npos);
  ASSERT_EQ(model->left_out().size(), 1u);
  EXPECT_NE(model->left_out()[0].find("inv_freq"), std::string::npos);
}

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
