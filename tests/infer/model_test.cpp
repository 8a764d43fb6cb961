#include "qianli/infer/model.h"

#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <fstream>

#include "qianli/base/error.h"
#include "qianli/infer/sequence.h"
#include "tests/infer/golden.h"
#include "tests/support/engine_support.h"
#include "tests/support/test_paths.h"

namespace qianli::infer {
namespace {

using testing::expect_close;
using testing::golden_tensor;
using testing::TemporaryFolder;

at::Tensor all_logits(Model& model, const TokenIds& ids) {
  std::vector<at::Tensor> rows;
  const std::vector<TokenIds> one{ids};
  score(model, one, {}, [&](const at::Tensor& block) { rows.push_back(block.clone()); });
  return at::cat(rows);
}

class GoldenModel : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenModel, logits_equal_transformers) {
  const auto tokens = testing::rows_of(golden_tensor(GetParam(), "tokens"));
  const at::Tensor expected = golden_tensor(GetParam(), "logits");
  for (const auto& [precision, tolerance] : {std::pair{"fp32", 1e-5}, {"fp64", 1e-6}}) {
    const auto model = testing::open_golden(GetParam(), precision);
    for (size_t s = 0; s < tokens.size(); ++s) {
      expect_close(all_logits(*model, tokens[s]), expected[s], tolerance, precision);
    }
  }
}

TEST_P(GoldenModel, cached_decoding_equals_the_full_forward_at_every_position) {
  const auto model = testing::open_golden(GetParam(), "fp32");
  const auto tokens = testing::rows_of(golden_tensor(GetParam(), "tokens"))[1];
  const at::Tensor expected = golden_tensor(GetParam(), "logits")[1];
  const std::span<const int64_t> ids = tokens;
  Sequence sequence(*model, 40, 13);
  for (const auto& [first, count] : {std::pair{0, 6}, {6, 7}}) {  // the prompt, in two parts
    sequence.append(ids.subspan(first, count));
    expect_close(sequence.logits(), expected[first + count - 1], 1e-5, "prompt");
  }
  for (int64_t i = 13; i < 40; ++i) {
    sequence.append(ids.subspan(i, 1));
    expect_close(sequence.logits(), expected[i], 1e-5, "position " + std::to_string(i));
  }
  EXPECT_THROW(sequence.append(ids.first(1)), MemoryError);
}

// Copies of the MLP, weighed by numbers that sum to 1.
TEST(Upcycled, computes_what_the_dense_model_does) {
  for (const char* name : {"llama2", "qwen3"}) {
    const convert::SourceOptions mixture{
        .upcycling = convert::Upcycling{.experts = 6, .top_k = 3, .seed = 5}};
    const auto tokens = testing::rows_of(golden_tensor(name, "tokens"))[0];
    const auto dense = testing::open_golden(name, "fp64");
    const auto model =
        Model::open(testing::golden_model_folder(name), {.precision = "fp64", .source = mixture});
    ASSERT_EQ(model->spec().moe->num_experts, 6) << name;
    expect_close(all_logits(*model, tokens), all_logits(*dense, tokens), 1e-12, name);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenModel, ::testing::ValuesIn(testing::golden_model_names()),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

TEST(GoldenModelLong, dynamic_rotary_scaling_follows_the_length) {
  const auto model = testing::open_golden("llama_dynamic", "fp32");
  const auto tokens = testing::rows_of(golden_tensor("llama_dynamic", "tokens_long"));
  const at::Tensor expected = golden_tensor("llama_dynamic", "logits_long");
  expect_close(all_logits(*model, tokens[0]), expected[0], 1e-5, "at once");
  // Beside a short sequence and in parts.
  const std::vector<TokenIds> mixed{{5, 6, 7}, tokens[1]};
  std::vector<at::Tensor> rows;
  score(*model, mixed, {.tokens_at_once = 32},
        [&](const at::Tensor& block) { rows.push_back(block.clone()); });
  expect_close(at::cat(rows).narrow(0, 3, 80), expected[1], 1e-5, "in parts");
}

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
}

TEST(ModelOpen, says_what_is_missing) {
  EXPECT_THROW(Model::open("/nonexistent/model", {}), ConfigError);
  TemporaryFolder folder;
  EXPECT_THROW(Model::open(folder.path(), {}), ConfigError);
  write(folder / "file", "x");
  EXPECT_THROW(Model::open(folder / "file", {}), ConfigError);
  write(folder / "config.json", "{");
  EXPECT_THROW(Model::open(folder.path(), {}), ConfigError);
  std::filesystem::copy_file(testing::golden_model_folder("llama2") / "config.json",
                             folder / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THROW(Model::open(folder.path(), {}), CheckpointError);
  write(folder / "model.safetensors", "not safetensors at all");
  EXPECT_THROW(Model::open(folder.path(), {}), CheckpointError);
}

TEST(ModelOpen, refuses_a_tokenizer_with_more_ids_than_the_embedding_has_rows) {
  TemporaryFolder folder;
  testing::copy_golden("llama2", folder / "model");
  const char* tokenizer = R"({"version": "1.0", "added_tokens": [], "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
    "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": {"a": 0, "b": LAST}, "merges": []}})";
  const auto with_last = [&](const std::string& id) {
    std::string text = tokenizer;
    return text.replace(text.find("LAST"), 4, id);
  };
  write(folder / "model" / "tokenizer.json", with_last("96"));
  EXPECT_TRUE(Model::open(folder / "model", {})->has_tokenizer());
  write(folder / "model" / "tokenizer.json", with_last("97"));
  EXPECT_THROW(Model::open(folder / "model", {}), DataError);
  write(folder / "model" / "tokenizer.json", "{}");
  EXPECT_THROW(Model::open(folder / "model", {}), DataError);
}

TEST(ModelOpen, reads_the_generation_config) {
  TemporaryFolder folder;
  testing::copy_golden("llama2", folder / "model");
  const auto file = folder / "model" / "generation_config.json";
  EXPECT_EQ(Model::open(folder / "model", {})->eos_ids(), std::vector<int64_t>{2});
  write(file, R"({"eos_token_id": [7, 9], "temperature": 0.6})");
  auto model = Model::open(folder / "model", {});
  EXPECT_EQ(model->eos_ids(), (std::vector<int64_t>{7, 9}));
  EXPECT_TRUE(model->default_sampling().greedy());
  write(file, R"({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.9})");
  model = Model::open(folder / "model", {});
  EXPECT_EQ(model->default_sampling().temperature, 0.6);
  EXPECT_EQ(model->default_sampling().top_k, 20);
  EXPECT_EQ(model->default_sampling().top_p, 0.9);
  for (const char* bad : {R"({"eos_token_id": "x"})", R"({"do_sample": 1})", "[]",
                          R"({"do_sample": true, "top_p": 2.0})"}) {
    write(file, bad);
    EXPECT_THROW(Model::open(folder / "model", {}), ConfigError) << bad;
  }
}

}  // namespace
}  // namespace qianli::infer
