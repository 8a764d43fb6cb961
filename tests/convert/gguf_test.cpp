// Hugging Face to GGUF and back for a small model of every family, and what GGUF refuses.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/base/random.h"
#include "qianli/convert/gguf_stored.h"
#include "qianli/convert/hugging_face.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"
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

}  // namespace
}  // namespace qianli::convert
