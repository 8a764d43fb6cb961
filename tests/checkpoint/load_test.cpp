// Checkpoints that others cut, changed or broke.
#include <ATen/core/Tensor.h>
#include <fmt/core.h>
#include <gtest/gtest.h>

#include "qianli/checkpoint/checkpoint.h"
#include "qianli/formats/checkpoint_folder.h"
#include "qianli/formats/hashed_file.h"
#include "qianli/formats/manifest.h"
#include "qianli/formats/safetensors.h"
#include "tests/checkpoint/tiny_run.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

namespace fs = std::filesystem;
using formats::Manifest;
using formats::TensorRecord;

class Load : public ::testing::Test {
 protected:
  void SetUp() override {
    TinyRun run;
    save_step(folder_.path(), run, 1);
  }

  fs::path step() const { return folder_ / "step_1"; }
  fs::path manifest() const { return step() / formats::kManifestName; }
  std::string refusal() {
    TinyRun loaded;
    return checkpoint_error(
        [&] { checkpoint::load(step(), loaded.parameters(), loaded.optimizer()); });
  }
  void expect_refusal(const std::string& says) {
    const std::string message = refusal();
    EXPECT_NE(message.find(says), std::string::npos) << message;
  }
  // The first shard of the weights.
  std::string first_shard() const {
    return formats::read_manifest(step()).tensors.front().slices.front().file;
  }
  // Replaces a file and what the manifest says of its size and hash.
  void replace_file(const std::string& name, const std::string& bytes) {
    const auto record = formats::write_hashed(step(), name, bytes);
    edit_json(manifest(), [&](Json& json) {
      for (Json& file : json["files"]) {
        if (file["name"] != name) continue;
        file["bytes"] = record.bytes;
        file["xxh3"] = fmt::format("{:016x}", record.xxh3);
      }
    });
  }

  TemporaryFolder folder_;
};

// Cuts `tensor` along each axis where `cuts` says and moves the boxes into one file.
void cut(const fs::path& step, TensorRecord& tensor, const at::Tensor& values,
         const std::vector<std::vector<int64_t>>& cuts, Manifest& manifest) {
  std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>> boxes = {{{}, {}}};
  for (const auto& edges : cuts) {
    std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>> finer;
    for (const auto& [offset, shape] : boxes) {
      for (size_t i = 0; i + 1 < edges.size(); ++i) {
        finer.push_back({offset, shape});
        finer.back().first.push_back(edges[i]);
        finer.back().second.push_back(edges[i + 1] - edges[i]);
      }
    }
    boxes = std::move(finer);
  }
  tensor.slices.clear();
  for (const auto& [offset, shape] : boxes) {
    at::Tensor part = values;
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      part = part.narrow(static_cast<int64_t>(axis), offset[axis], shape[axis]);
    }
    part = part.contiguous();
    const std::string file = fmt::format("rank-{}.safetensors", manifest.files.size());
    formats::TensorEntry entry;
    entry.name = "part";
    entry.shape = shape;
    entry.bytes = {static_cast<const std::byte*>(part.const_data_ptr()), part.nbytes()};
    formats::write_safetensors(step / file, std::span(&entry, 1));
    manifest.files.push_back(formats::write_hashed(step, file, read_text(step / file)));
    tensor.slices.push_back({.file = file, .key = "part", .offset = offset, .shape = shape});
  }
}

TEST_F(Load, puts_slices_of_any_layout_together) {
  TinyRun run;
  run.at_step(1);
  Manifest manifest = formats::read_manifest(step());
  int cut_tensors = 0;
  for (TensorRecord& tensor : manifest.tensors) {
    const size_t i = run.parameters().index_of(tensor.name);
    if (tensor.name == "embedding.word_embeddings.weight") {
      const at::Tensor values =
          tensor.kind == formats::TensorKind::kWeight
              ? run.parameters().exact(i)
              : run.parameters().view(tensor.kind == formats::TensorKind::kExpAvg
                                          ? run.optimizer().exp_avg()
                                          : run.optimizer().exp_avg_sq(),
                                      i);
      const int64_t rows = tensor.shape[0], columns = tensor.shape[1];
      // Two columns of ranks, uneven rows of ranks: all boxes in all directions.
      cut(step(), tensor, values, {{0, 3, rows - 1, rows}, {0, columns / 2, columns}}, manifest);
      ++cut_tensors;
    }
  }
  ASSERT_EQ(cut_tensors, 3);
  write_text(step() / formats::kManifestName, to_json(manifest));
  EXPECT_TRUE(loads_as_saved(step(), 1));
}

TEST_F(Load, converts_between_float32_and_float64) {
  TinyRun wide(at::kDouble), narrow;
  narrow.at_step(1);
  checkpoint::load(step(), wide.parameters(), wide.optimizer());
  const at::Tensor expected = narrow.parameters().flat().to(at::kDouble);
  EXPECT_TRUE(wide.parameters().flat().equal(expected));
  EXPECT_TRUE(wide.optimizer().exp_avg_sq().equal(narrow.optimizer().exp_avg_sq().to(at::kDouble)));
}

TEST_F(Load, changed_bytes_are_noticed) {
  const std::string name = first_shard();
  std::string bytes = read_text(step() / name);
  bytes[bytes.size() - 3] ^= 1;
  write_text(step() / name, bytes);
  expect_refusal(name + ": its content is not what was saved");
}

TEST_F(Load, missing_and_truncated_files_are_named) {
  const std::string name = first_shard();
  const std::string bytes = read_text(step() / name);
  for (const size_t size : {size_t{0}, size_t{7}, bytes.size() - 1}) {
    write_text(step() / name, bytes.substr(0, size));
    expect_refusal(name);
  }
  fs::remove(step() / name);
  expect_refusal(name);
}

TEST_F(Load, safetensors_that_contradict_themselves_are_refused) {
  const std::string name = first_shard();
  const std::string bytes = read_text(step() / name);
  replace_file(name, bytes.substr(0, bytes.size() - 8));
  expect_refusal("truncated");
  replace_file(name, bytes + "12345678");
  expect_refusal("bytes after the last tensor");
  std::string huge = bytes;
  huge[4] = 1;  // a header of 4 GB
  replace_file(name, huge);
  expect_refusal("header");
  const size_t place = bytes.find("\"data_offsets\":[0,");
  ASSERT_NE(place, std::string::npos);
  std::string shifted = bytes;
  shifted[place + 16] = '4';
  replace_file(name, shifted);
  expect_refusal(name);
}

TEST_F(Load, a_manifest_of_another_model_is_refused) {
  const std::string good = read_text(manifest());
  const auto edited = [&](const std::function<void(Json&)>& edit) {
    write_text(manifest(), good);
    edit_json(manifest(), edit);
  };
  const auto shape_to = [](Json& json, std::vector<int64_t> shape) {
    Json& tensor = json["tensors"][0];
    tensor["shape"] = shape;
    tensor["slices"][0]["shape"] = shape;
    tensor["slices"][0]["offset"] = std::vector<int64_t>(shape.size(), 0);
  };
  const std::string missing = formats::read_manifest(step()).tensors[0].name;
  const auto whole = formats::read_manifest(step()).tensors[0].shape;
  // A shape and a dtype that the file does not have, though the manifest agrees with itself.
  edited([&](Json& json) { shape_to(json, {whole[0] * whole[1]}); });
  expect_refusal(fmt::format("the manifest says F32 [{}]", whole[0] * whole[1]));
  edited([&](Json& json) { json["tensors"][0]["dtype"] = "F64"; });
  expect_refusal("the manifest says F64");
  edited([](Json& json) { json["tensors"][0]["slices"][0]["key"] = "nothing"; });
  expect_refusal("expected a tensor 'nothing'");
  edited([](Json& json) { json["tensors"].erase(0); });
  expect_refusal(missing);
  edited([](Json& json) { json["tensors"].erase(json["tensors"].size() - 1); });
  expect_refusal("'exp_avg_sq.");
  edited([](Json& json) {
    Json extra = json["tensors"][0];
    extra["name"] = "decoder.layers.99.surplus";
    json["tensors"].push_back(extra);
  });
  expect_refusal("decoder.layers.99.surplus");
  edited([](Json& json) { json["files"][0]["name"] = "../config.json"; });
  expect_refusal("name of a file in this folder");
  edited([](Json&) {});
  EXPECT_TRUE(loads_as_saved(step(), 1));
}

TEST_F(Load, a_folder_without_manifest_is_no_checkpoint) {
  fs::remove(manifest());
  EXPECT_FALSE(formats::is_checkpoint(step()));
  expect_refusal("manifest.json");
}

}  // namespace
}  // namespace qianli::testing
