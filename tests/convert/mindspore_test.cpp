// MindSpore's checkpoints: which rows lie where, and files of more than one kind.
#include "qianli/convert/mindspore/mindspore.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/hugging_face/tensors.h"
#include "qianli/convert/produce.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/mindspore_checkpoint.h"
#include "tests/convert/made_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

using testing::rows_of;
using testing::small_model;
using testing::tensor_named;
using testing::weights;

// research/deepseek3/convert_weight.py: the rotary rows of a head are reshaped to pairs and
// transposed, so that the first of every pair come before the second.
TEST(MindFormers, takes_rotary_pairs_apart) {
  const model::ModelSpec spec = [] {
    model::ModelSpec s = small_model("deepseek_v3");
    s.mtp.num_layers = 0;
    return s;
  }();
  const Table table = model::parameter_table(spec);
  const auto tensors = mindformers_tensors(spec, table);
  check_cover(table, tensors, "test");
  const auto& sizes = *spec.latent_attention;
  const int64_t nope = sizes.qk_nope_head_dim, rope = sizes.qk_rope_head_dim;
  const auto keys = rows_of(tensor_named(tensors, "model.layers.0.attention.kv2l_k_pe.weight"));
  const auto queries =
      rows_of(tensor_named(tensors, "model.layers.0.attention.l2q_pe_proj.weight"));
  for (int64_t r = 0; r < rope; ++r) {
    const int64_t pair = r % (rope / 2), second = r / (rope / 2);
    EXPECT_EQ(keys[static_cast<size_t>(r)], sizes.kv_lora_rank + 2 * pair + second);
    EXPECT_EQ(queries[static_cast<size_t>(rope + r)], (nope + rope) + nope + 2 * pair + second);
  }
  const auto values = rows_of(tensor_named(tensors, "model.layers.0.attention.lkv2kv_v.weight"));
  EXPECT_EQ(values[0], nope);
  EXPECT_EQ(values[static_cast<size_t>(sizes.v_head_dim)], nope + sizes.v_head_dim + nope);
}

TEST(MindFormers, stacks_experts) {
  const model::ModelSpec spec = small_model("mixtral");
  const Table table = model::parameter_table(spec);
  const auto tensors = mindformers_tensors(spec, table);
  const auto& up = tensor_named(tensors, "model.layers.0.feed_forward.ffn.w3.weight");
  const int64_t width = spec.moe->ffn_hidden_size;
  EXPECT_EQ(up.shape, (std::vector<int64_t>{spec.moe->num_experts, width, spec.hidden_size}));
  EXPECT_EQ(up.parts[1].first_row, 3 * width);  // behind [gate; up] of one expert and a gate
  EXPECT_EQ(up.parts[1].foreign_row, width);
}

// A model of Megatron's may be of no family at all: what has no name says so.
TEST(MindFormers, refuses_what_it_has_no_name_for) {
  model::ModelSpec spec = small_model("mixtral");
  spec.qk_norm = model::QkNorm::kHead;
  try {
    mindformers_tensors(spec, model::parameter_table(spec));
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("0.self_attention.k_layernorm"), std::string::npos);
  }
}

// What convert_weight.py makes with use_gmm and qkv_concat is read like the plain form.
TEST(MindFormers, reads_transposed_experts_and_joined_projections) {
  const testing::TemporaryFolder folder;
  const auto source = testing::made_model(small_model("qwen2_moe"));
  const auto shape_of = [&](const std::string& name) -> const std::vector<int64_t>* {
    static const std::vector<int64_t> joined = {1};
    static std::vector<int64_t> swapped;
    if (name.ends_with("w_qkv.weight") || name.ends_with("w_qkv.bias")) return &joined;
    if (name.find(".ffn.w") == name.npos) return nullptr;
    const int64_t width = source->spec.moe->ffn_hidden_size, hidden = source->spec.hidden_size;
    const bool down = name.ends_with("w2.weight");
    swapped = {source->spec.moe->num_experts, down ? width : hidden, down ? hidden : width};
    return &swapped;
  };
  const Targets targets(*source, mindformers_tensors(source->spec, source->table, shape_of), {});
  formats::write_mindspore(folder / "joined.ckpt", targets.specs(), targets.producer());
  write_hugging_face(*source, folder / "before", {}, {});
  const SourceOptions of_model{.config = (folder / "before").string()};
  const auto read = open_model(folder / "joined.ckpt", of_model);
  EXPECT_TRUE(read->reader->unused().empty());
  write_hugging_face(*read, folder / "after", {}, {});
  EXPECT_EQ(weights(folder / "before"), weights(folder / "after"));
}

TEST(Mindspore, reads_weights_in_several_files_under_either_name) {
  const testing::TemporaryFolder folder;
  const auto source = testing::made_model(small_model("qwen2"));
  write_hugging_face(*source, folder / "before", {}, {});
  for (const bool torch_names : {false, true}) {
    const std::string name = torch_names ? "torch" : "own";
    write_mindspore(*source, folder / name, {.torch_names = torch_names}, {});
    const auto whole = formats::open_mindspore_source(folder / name / "model.ckpt");
    EXPECT_EQ(whole->find("model.embed_tokens.weight") != nullptr, torch_names);
    EXPECT_EQ(whole->find("model.tok_embeddings.embedding_weight") != nullptr, !torch_names);
    std::vector<formats::TensorSpec> halves[2];
    for (size_t i = 0; i < whole->tensors().size(); ++i)
      halves[i % 2].push_back(whole->tensors()[i]);
    for (const size_t half : {0U, 1U}) {
      formats::write_mindspore(
          folder / name / ("part" + std::to_string(half) + ".ckpt"), halves[half],
          [&](const formats::TensorSpec& tensor, const formats::ByteSink& sink) {
            formats::stream(*whole, whole->at(tensor.name), sink);
          });
    }
    std::filesystem::remove(folder / name / "model.ckpt");
    write_hugging_face(*open_model(folder / name), folder / (name + "_after"), {}, {});
    EXPECT_EQ(weights(folder / "before"), weights(folder / (name + "_after")));
  }
}

TEST(Mindspore, says_what_is_missing) {
  const testing::TemporaryFolder folder;
  write_mindspore(*testing::made_model(small_model("qwen2")), folder / "model", {}, {});
  std::filesystem::rename(folder / "model" / "model.ckpt", folder / "alone.ckpt");
  EXPECT_THROW(open_model(folder / "alone.ckpt"), CheckpointError);  // of which model?
  const SourceOptions of_gemma{.config = "gemma-2b"};
  EXPECT_THROW(open_model(folder / "alone.ckpt", of_gemma), CheckpointError);
  const SourceOptions of_qwen{.config = (folder / "model").string()};
  EXPECT_NO_THROW(open_model(folder / "alone.ckpt", of_qwen));
}

}  // namespace
}  // namespace qianli::convert
