// Hugging Face folders: those that transformers wrote are read and written back.
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/checkpoint/checkpoint.h"
#include "qianli/checkpoint/stored_tensor.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/model/hugging_face.h"
#include "tests/checkpoint/tiny_run.h"
#include "tests/support/stored_tensors.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

namespace fs = std::filesystem;
using formats::SafetensorsFile;
using formats::TensorEntry;

nn::ParameterSet empty_model(const fs::path& folder, at::ScalarType dtype = at::kFloat,
                             bool master = false) {
  return nn::ParameterSet(model::load_spec(folder), dtype, at::kCPU, master);
}

// By way of a checkpoint, as at the end of a run.
void export_hugging_face(const fs::path& folder, const model::ModelSpec& spec,
                         nn::ParameterSet& parameters, const convert::TargetOptions& options,
                         const fs::path& tokenizer = {}) {
  TemporaryFolder place;
  optim::FlatOptimizer optimizer(parameters, {});
  checkpoint::Saver saver({.folder = place / "checkpoints",
                           .asynchronous = false,
                           .tokenizer = tokenizer,
                           .spec = spec});
  saver.save(state_of(1), parameters, optimizer);
  convert::write_hugging_face(*convert::open_model(place / "checkpoints/step_1"), folder, options,
                              {});
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(source_path("tests/golden/models"))) {
    if (fs::exists(entry.path() / "model.safetensors")) names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

// A folder with the config.json of a golden model, whose weights `edit` may change.
struct EditedModel {
  EditedModel(const std::string& golden,
              const std::function<void(std::vector<TensorEntry>&)>& edit) {
    const fs::path source = source_path("tests/golden/models/" + golden);
    fs::copy_file(source / "config.json", folder / "config.json");
    const auto file = SafetensorsFile::open(source / "model.safetensors");
    std::vector<TensorEntry> entries = file.entries();
    edit(entries);
    formats::write_safetensors(folder / "model.safetensors", entries);
  }
  std::string refusal() {
    auto parameters = empty_model(folder.path());
    return checkpoint_error([&] { checkpoint::load_weights(folder.path(), parameters); });
  }
  TemporaryFolder folder;
};

TensorEntry renamed(TensorEntry entry, const std::string& name) {
  entry.name = name;
  return entry;
}

class GoldenWeights : public ::testing::TestWithParam<std::string> {
 protected:
  fs::path folder() const { return source_path("tests/golden/models/" + GetParam()); }
};

TEST_P(GoldenWeights, every_parameter_has_the_rows_of_its_pieces) {
  const auto file = SafetensorsFile::open(folder() / "model.safetensors");
  auto parameters = empty_model(folder());
  checkpoint::load_weights(folder(), parameters);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor own = parameters.exact(i);
    int64_t elements = 0;
    for (const model::ForeignPiece& piece : parameters.entry(i).hugging_face) {
      const at::Tensor stored = stored_tensor(file, piece.name);
      const int64_t columns = piece.own_columns();
      for (int64_t r = 0; r < piece.rows; ++r) {
        const int64_t row = piece.foreign_row_of(r);
        at::Tensor slice = stored.reshape({piece.slices, -1, piece.columns})[piece.index];
        if (piece.transposed) slice = slice.t();
        ASSERT_TRUE(own.reshape({-1, columns})[piece.first_row + r].equal(slice[row]))
            << parameters.entry(i).name << " row " << r << " of " << piece.name;
      }
      elements += piece.rows * columns;
    }
    EXPECT_EQ(elements, own.numel()) << parameters.entry(i).name;
  }
}

TEST_P(GoldenWeights, export_gives_back_the_tensors_that_transformers_wrote) {
  auto parameters = empty_model(folder());
  checkpoint::load_weights(folder(), parameters);
  TemporaryFolder place;
  const auto spec = model::load_spec(folder());
  export_hugging_face(place / "out", spec, parameters,
                      {.dtype = formats::Dtype::kF32, .max_shard_bytes = 30'000});
  EXPECT_EQ(model::load_spec(place / "out"), spec);
  EXPECT_TRUE(fs::exists(place / "out/generation_config.json"));
  const auto expected = SafetensorsFile::open(folder() / "model.safetensors");
  const auto written = formats::SafetensorsFolder::open(place / "out");
  EXPECT_GT(written.files().size(), 1U);
  EXPECT_EQ(written.entries().size(), expected.entries().size());
  for (const TensorEntry& tensor : expected.entries()) {
    const TensorEntry& other = written.at(tensor.name);
    EXPECT_EQ(other.shape, tensor.shape) << tensor.name;
    EXPECT_EQ(other.dtype, tensor.dtype) << tensor.name;
    EXPECT_TRUE(std::ranges::equal(other.bytes, tensor.bytes)) << tensor.name;
  }
}

TEST_P(GoldenWeights, export_in_bfloat16_rounds_and_loads_everywhere) {
  auto parameters = empty_model(folder());
  checkpoint::load_weights(folder(), parameters);
  TemporaryFolder place;
  export_hugging_face(place / "out", model::load_spec(folder()), parameters,
                      {.dtype = formats::Dtype::kBF16});
  auto exact = empty_model(folder()), narrow = empty_model(folder(), at::kBFloat16, true);
  checkpoint::load_weights(place / "out", exact);
  checkpoint::load_weights(place / "out", narrow);
  const at::Tensor rounded = parameters.flat().to(at::kBFloat16);
  EXPECT_TRUE(exact.flat().equal(rounded.to(at::kFloat)));
  EXPECT_TRUE(narrow.flat().equal(rounded));
  EXPECT_TRUE(narrow.master(narrow.owned().parts()[0]).equal(exact.flat()));
}

INSTANTIATE_TEST_SUITE_P(Checkpoint, GoldenWeights, ::testing::ValuesIn(golden_names()),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace_if(
                               name, [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

TEST(LoadWeights, prefixes_may_be_left_out) {
  const std::pair<const char*, std::string> families[] = {{"gpt2", "transformer."},
                                                          {"qwen3", "model."}};
  for (const auto& [golden, prefix] : families) {
    int stripped = 0;
    EditedModel bare(golden, [&, &prefix = prefix](auto& entries) {
      for (auto& entry : entries) {
        if (!entry.name.starts_with(prefix)) continue;
        entry.name = entry.name.substr(prefix.size());
        ++stripped;
      }
    });
    EXPECT_GT(stripped, 10) << golden;
    const fs::path source = source_path(std::string("tests/golden/models/") + golden);
    auto expected = empty_model(source), loaded = empty_model(source);
    checkpoint::load_weights(source, expected);
    checkpoint::load_weights(bare.folder.path(), loaded);
    EXPECT_TRUE(same_weights(expected, loaded)) << golden;

    EditedModel both(golden, [&, &prefix = prefix](auto& entries) {
      const auto first = std::ranges::find_if(
          entries, [&](const auto& entry) { return entry.name.starts_with(prefix); });
      entries.push_back(renamed(*first, first->name.substr(prefix.size())));
    });
    EXPECT_NE(both.refusal().find("got both"), std::string::npos);
  }
}

TEST(LoadWeights, stored_buffers_and_a_tied_output_layer_are_left_out) {
  EditedModel qwen("qwen3", [](auto& entries) {
    const TensorEntry norm = *std::ranges::find_if(
        entries, [](const auto& entry) { return entry.name == "model.norm.weight"; });
    const TensorEntry embedding = *std::ranges::find_if(
        entries, [](const auto& entry) { return entry.name == "model.embed_tokens.weight"; });
    entries.push_back(renamed(norm, "model.layers.0.self_attn.rotary_emb.inv_freq"));
    entries.push_back(renamed(embedding, "lm_head.weight"));
  });
  auto expected = empty_model(qwen.folder.path()), loaded = empty_model(qwen.folder.path());
  checkpoint::load_weights(source_path("tests/golden/models/qwen3"), expected);
  checkpoint::load_weights(qwen.folder.path(), loaded);
  EXPECT_TRUE(same_weights(expected, loaded));

  EditedModel gpt2("gpt2", [](auto& entries) {
    const TensorEntry any = entries.front();
    entries.push_back(renamed(any, "transformer.h.0.attn.bias"));
    entries.push_back(renamed(any, "transformer.h.0.attn.masked_bias"));
  });
  auto parameters = empty_model(gpt2.folder.path());
  checkpoint::load_weights(gpt2.folder.path(), parameters);
}

TEST(LoadWeights, every_tensor_counts) {
  EditedModel unknown("llama2", [](auto& entries) {
    entries.push_back(renamed(entries.front(), "model.layers.7.surprise.weight"));
  });
  EXPECT_NE(unknown.refusal().find("'model.layers.7.surprise.weight'"), std::string::npos);
  // Untied, so a second output layer is no stranger to be ignored: it is the weight itself.
  EditedModel missing("llama2", [](auto& entries) {
    std::erase_if(entries, [](const auto& entry) { return entry.name == "lm_head.weight"; });
  });
  EXPECT_NE(missing.refusal().find("'lm_head.weight', found none"), std::string::npos);
  EditedModel flat("llama2", [](auto& entries) {
    for (auto& entry : entries) {
      if (entry.name == "lm_head.weight") entry.shape = {entry.shape[0] * entry.shape[1]};
    }
  });
  EXPECT_NE(flat.refusal().find("expected 'lm_head.weight' of shape ["), std::string::npos);
  EditedModel integers("llama2", [](auto& entries) {
    for (auto& entry : entries) {
      if (entry.name == "lm_head.weight") entry.dtype = formats::Dtype::kI32;
    }
  });
  EXPECT_NE(integers.refusal().find("got I32"), std::string::npos);
}

TEST(LoadWeights, all_float_types_are_converted) {
  const fs::path source = source_path("tests/golden/models/qwen2");
  auto original = empty_model(source);
  checkpoint::load_weights(source, original);
  const std::pair<formats::Dtype, at::ScalarType> types[] = {
      {formats::Dtype::kF64, at::kDouble},
      {formats::Dtype::kF32, at::kFloat},
      {formats::Dtype::kF16, at::kHalf},
      {formats::Dtype::kBF16, at::kBFloat16}};
  for (const auto& [dtype, type] : types) {
    TemporaryFolder place;
    export_hugging_face(place / "out", model::load_spec(source), original, {.dtype = dtype});
    auto loaded = empty_model(source, at::kDouble);
    checkpoint::load_weights(place / "out", loaded);
    EXPECT_TRUE(loaded.flat().equal(original.flat().to(type).to(at::kDouble)))
        << formats::dtype_name(dtype);
  }
}

TEST(LoadWeights, a_folder_without_weights_is_refused_with_a_hint) {
  TemporaryFolder folder;
  auto parameters = empty_model(source_path("tests/golden/models/qwen2"));
  const auto refusal = [&] {
    return checkpoint_error([&] { checkpoint::load_weights(folder.path(), parameters); });
  };
  EXPECT_NE(refusal().find("expected a model, got "), std::string::npos);
  fs::copy_file(source_path("tests/golden/models/qwen2/config.json"), folder / "config.json");
  EXPECT_NE(refusal().find("expected model.safetensors"), std::string::npos);
}

TEST(Export, takes_tokenizer_files_along_and_overwrites_nothing) {
  TemporaryFolder place, tokenizer;
  write_text(tokenizer / "tokenizer.json", "{}");
  write_text(tokenizer / "generation_config.json", "{\"top_k\": 5}");
  TinyRun run;
  run.fill(1);
  const auto export_to = [&](const fs::path& folder) {
    export_hugging_face(folder, run.spec(), run.parameters(), {}, tokenizer.path());
  };
  export_to(place / "out");
  EXPECT_EQ(read_text(place / "out/tokenizer.json"), "{}");
  EXPECT_EQ(read_text(place / "out/generation_config.json"), "{\"top_k\": 5}");
  EXPECT_NE(checkpoint_error([&] { export_to(place / "out"); }).find("exists already"),
            std::string::npos);
}

}  // namespace
}  // namespace qianli::testing
