// Hugging Face to GGUF and back for a small model of every family, and what GGUF refuses.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/base/random.h"
#include "qianli/convert/gguf/spec.h"
#include "qianli/convert/gguf/stored.h"
#include "qianli/convert/hugging_face/tensors.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/gguf.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/model/family.h"
#include "qianli/model/hugging_face.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

struct Case {
  std::string name;
  Json config;
};

// Those that transformers builds, and those that it does not.
const std::vector<Case>& cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> found;
    for (const char* path : {"tests/golden/families.json", "tests/convert/families.json",
                             "tests/convert/gguf_families.json"}) {
      for (const Json& one : read_json(testing::source_path(path), FileRole::kData)) {
        found.push_back({one.at("name"), one.at("config")});
      }
    }
    return found;
  }();
  return all;
}

std::string bytes_of(const fs::path& file) { return read_file(file, FileRole::kCheckpoint); }

// Random weights of both signs, large and small.
void write_folder(const Case& one, const fs::path& folder) {
  fs::create_directories(folder);
  write_file_atomically(folder / "config.json", one.config.dump(), FileRole::kData);
  const auto spec = model::from_hugging_face(one.config, one.name);
  std::vector<formats::TensorSpec> tensors;
  for (const ForeignTensor& tensor : hugging_face_tensors(model::parameter_table(spec))) {
    if (!tensor.copy) {
      tensors.push_back({.name = tensor.name, .shape = tensor.shape});
    }
  }
  formats::write_sharded(folder, tensors, 1 << 30,
                         [](const formats::TensorSpec& tensor, const formats::ByteSink& sink) {
                           std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
                           fill_normal(random_key(7, tensor.name), 0, values.size(), 0.0, 0.2,
                                       values.data());
                           sink(std::as_bytes(std::span(values)));
                         });
}

// Why GGUF does not hold a model; empty where it does.
std::string refusal(const std::string& name) {
  static const std::map<std::string, std::string> refused{
      {"deepseek_v32", "got deepseek_v32"},
      {"deepseek_v4", "got deepseek_v4"},
      {"longcat_flash", "got longcat_flash"},
      {"hy_v3", "got hy_v3"},
      {"hunyuan_large", "got hunyuan"},
      {"baichuan2_7b", "normalized_output true"},
      {"baichuan2_13b", "normalized_output true"},
      {"qwen2_moe", "moe.layer_frequency 2"},
      {"qwen3_moe", "moe.dense_layers 1"},
      {"phimoe", "rope.scaling.short_mscale 1.2"},
  };
  const auto place = refused.find(name);
  return place == refused.end() ? "" : place->second;
}

std::vector<float> values_of(const ModelSource& model, size_t parameter) {
  const int64_t rows = matrix_rows(model.table[parameter]);
  const int64_t columns = matrix_columns(model.table[parameter]);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  const ForeignTensor whole{.name = "whole",
                            .shape = {rows, columns},
                            .parts = {{.parameter = parameter,
                                       .rows = rows,
                                       .columns = columns,
                                       .foreign_rows = rows,
                                       .foreign_columns = columns}}};
  model.reader->assemble(whole, formats::Dtype::kF32, std::as_writable_bytes(std::span(values)));
  return values;
}

void replace(std::string& text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, from.size(), to);
}

// As other programs write it: without this program's own key.
void expect_same_without_own_key(const fs::path& file, const ModelSource& source,
                                 const fs::path& other) {
  std::string bytes = bytes_of(file);
  replace(bytes, "qianli.config", "qianli.nothin");
  if (bytes.find(kExactKey) != std::string::npos) replace(bytes, kExactKey, "qianli.exacd");
  write_file_atomically(other, bytes, FileRole::kCheckpoint);
  const auto model = open_model(other);
  ASSERT_EQ(model->table.size(), source.table.size());
  for (size_t i = 0; i < model->table.size(); ++i) {
    ASSERT_EQ(model->table[i].name, source.table[i].name);
    ASSERT_EQ(model->table[i].shape, source.table[i].shape);
    const auto expected = values_of(source, i), found = values_of(*model, i);
    for (size_t n = 0; n < found.size(); ++n) {
      ASSERT_NEAR(expected[n], found[n], 2.5e-7) << model->table[i].name;  // of kPlusOne
    }
  }
}

class GgufFamilies : public ::testing::TestWithParam<Case> {};

TEST_P(GgufFamilies, come_back) {
  const testing::TemporaryFolder folder;
  write_folder(GetParam(), folder / "source");
  const auto source = open_model(folder / "source");
  const std::string reason = refusal(GetParam().name);
  if (!reason.empty()) {
    try {
      write_gguf(*source, folder / "model.gguf", {}, {});
      FAIL() << "written";
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    }
    EXPECT_FALSE(fs::exists(folder / "model.gguf"));
    return;
  }
  write_gguf(*source, folder / "model.gguf", {}, {});
  const auto gguf = open_model(folder / "model.gguf");
  EXPECT_TRUE(gguf->reader->unused().empty()) << gguf->reader->unused().front();
  const Proof proof = verify(*source, *gguf);
  EXPECT_EQ(proof.parameters, gguf->table.size());
  write_hugging_face(*gguf, folder / "back", {}, {});
  EXPECT_TRUE(bytes_of(folder / "source" / "model.safetensors") ==
              bytes_of(folder / "back" / "model.safetensors"));
  expect_same_without_own_key(folder / "model.gguf", *source, folder / "other.gguf");
}

INSTANTIATE_TEST_SUITE_P(All, GgufFamilies, ::testing::ValuesIn(cases()), [](const auto& info) {
  std::string name = info.param.name;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

TEST(GgufFamilies, are_all_there) {
  std::vector<std::string> missing;
  for (const std::string& family : model::family_names()) {
    // Told apart from others by training or tokens alone, or published nowhere.
    if (family == "kimi_k2" || family == "bailing_moe_v2" || family == "gpt4_moe" ||
        family == "mamba2_hybrid") {
      continue;
    }
    const bool there = std::ranges::any_of(
        cases(), [&](const Case& one) { return one.config.at("model_type") == family; });
    if (!there) missing.push_back(family);
  }
  EXPECT_TRUE(missing.empty()) << missing.front();
}

Case case_named(const std::string& name) { return *std::ranges::find(cases(), name, &Case::name); }

TEST(Gguf, keeps_norms_and_biases_and_rounds_the_rest) {
  const testing::TemporaryFolder folder;
  Case one = case_named("gemma2");
  one.config["hidden_size"] = 64;
  write_folder(one, folder / "source");
  const auto source = open_model(folder / "source");
  write_gguf(*source, folder / "model.gguf", {.q8_0 = true}, {});
  const auto file = formats::open_gguf_source(folder / "model.gguf");
  const auto stored = [&](const char* name) { return file->stored_as(file->at(name)); };
  EXPECT_EQ(stored("token_embd.weight"), "Q8_0");
  EXPECT_EQ(stored("blk.0.attn_q.weight"), "Q8_0");
  EXPECT_EQ(stored("blk.0.ffn_down.weight"), "F16");  // rows of 48 are no blocks of 32
  EXPECT_EQ(stored("blk.0.attn_norm.weight"), "F32");
  const auto gguf = open_model(folder / "model.gguf");
  EXPECT_EQ(verify(*source, *gguf).parameters, source->table.size());

  // Another model is told from a rounded one.
  write_folder(one, folder / "other");
  std::string bytes = bytes_of(folder / "other" / "model.safetensors");
  bytes[bytes.size() - 1] = static_cast<char>(bytes.back() ^ 0x40);
  write_file_atomically(folder / "other" / "model.safetensors", bytes, FileRole::kData);
  EXPECT_THROW(verify(*open_model(folder / "other"), *gguf), CheckpointError);
}

// Mixtures as llama.cpp's converter wrote them until March 2024.
TEST(Gguf, reads_files_with_a_tensor_for_each_expert) {
  const testing::TemporaryFolder folder;
  write_folder(case_named("mixtral"), folder / "source");
  const auto source = open_model(folder / "source");
  write_gguf(*source, folder / "new.gguf", {}, {});
  const auto file = formats::open_gguf_source(folder / "new.gguf");
  std::vector<formats::GgufTensorToWrite> tensors;
  std::map<std::string, std::vector<std::byte>> contents;
  int taken_apart = 0;
  for (const formats::TensorSpec& tensor : file->tensors()) {
    std::vector<std::byte> bytes(tensor.num_bytes());
    file->read(tensor, bytes);
    const size_t end = tensor.name.find("_exps.");
    if (end == tensor.name.npos) {
      tensors.push_back({.name = tensor.name, .shape = tensor.shape});
      contents[tensor.name] = std::move(bytes);
      continue;
    }
    ++taken_apart;
    const std::span<const std::byte> all = bytes;
    const size_t size = bytes.size() / static_cast<size_t>(tensor.shape.at(0));
    for (size_t e = 0; e < bytes.size() / size; ++e) {
      const std::string name = fmt::format("{}.{}.weight", tensor.name.substr(0, end), e);
      tensors.push_back({.name = name, .shape = {tensor.shape.at(1), tensor.shape.at(2)}});
      const auto expert = all.subspan(e * size, size);
      contents[name].assign(expert.begin(), expert.end());
    }
  }
  EXPECT_EQ(taken_apart, 3 * source->spec.num_layers);
  const GgufArchitecture& architecture = gguf_architecture_of(source->spec);
  formats::GgufMetadata metadata;
  const GgufKeys keys = keys_of_spec(as_gguf_tells(source->spec, architecture), architecture);
  for (const auto& [key, value] : keys.values()) metadata.emplace_back(key, value);
  formats::write_gguf(
      folder / "old.gguf", metadata, tensors,
      [&](const auto& tensor, const auto& sink) { sink(contents.at(tensor.name)); });
  const auto old = open_model(folder / "old.gguf");
  EXPECT_TRUE(old->reader->unused().empty()) << old->reader->unused().front();
  write_hugging_face(*old, folder / "back", {}, {});
  EXPECT_TRUE(bytes_of(folder / "source" / "model.safetensors") ==
              bytes_of(folder / "back" / "model.safetensors"));
}

TEST(Gguf, keeps_the_type_of_matrices) {
  const testing::TemporaryFolder folder;
  write_folder(case_named("llama"), folder / "source");
  const auto source = open_model(folder / "source");
  write_gguf(*source, folder / "model.gguf", {.dtype = formats::Dtype::kBF16}, {});
  const auto file = formats::open_gguf_source(folder / "model.gguf");
  EXPECT_EQ(file->stored_as(file->at("blk.1.attn_k.weight")), "BF16");
  EXPECT_EQ(file->stored_as(file->at("blk.1.attn_k.bias")), "F32");
  EXPECT_NO_THROW(verify(*source, *open_model(folder / "model.gguf")));
}

TEST(Gguf, that_was_edited_is_read_by_its_keys) {
  const testing::TemporaryFolder folder;
  write_folder(case_named("llama"), folder / "source");
  write_gguf(*open_model(folder / "source"), folder / "model.gguf", {}, {});
  std::string bytes = bytes_of(folder / "model.gguf");
  const std::string key = "llama.context_length";
  const size_t at = bytes.find(key) + key.size() + 4;  // behind the value's type
  bytes[at] = 77;
  write_file_atomically(folder / "edited.gguf", bytes, FileRole::kData);
  EXPECT_EQ(open_model(folder / "edited.gguf")->spec.max_position_embeddings, 77);
}

}  // namespace
}  // namespace qianli::convert
