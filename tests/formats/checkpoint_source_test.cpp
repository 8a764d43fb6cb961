#include "qianli/formats/checkpoint_source.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "qianli/base/error.h"
#include "qianli/formats/hashed_file.h"
#include "qianli/formats/safetensors.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

// A [3, 4, 5] tensor of the numbers from 0, cut at `edges` along each axis, every box in a file of
// its own.
class CutTensor : public ::testing::Test {
 protected:
  using Sizes = std::vector<int64_t>;

  void cut(const std::vector<Sizes>& edges) {
    manifest_ = {.model = Json::object()};
    TensorRecord tensor{.name = "w", .shape = {3, 4, 5}};
    for (size_t i = 0; i + 1 < edges[0].size(); ++i) {
      for (size_t j = 0; j + 1 < edges[1].size(); ++j) {
        for (size_t k = 0; k + 1 < edges[2].size(); ++k) {
          const Sizes offset{edges[0][i], edges[1][j], edges[2][k]};
          add_box(tensor, offset,
                  {edges[0][i + 1] - offset[0], edges[1][j + 1] - offset[1],
                   edges[2][k + 1] - offset[2]});
        }
      }
    }
    manifest_.tensors = {tensor};
    // What is written is read again, so the boxes cover the tensor.
    manifest_ = parse_manifest(to_json(manifest_), "manifest.json");
  }

  void add_box(TensorRecord& tensor, const Sizes& offset, const Sizes& shape) {
    std::vector<float> values;
    for (int64_t i = 0; i < shape[0]; ++i) {
      for (int64_t j = 0; j < shape[1]; ++j) {
        for (int64_t k = 0; k < shape[2]; ++k) {
          values.push_back(
              static_cast<float>(((offset[0] + i) * 4 + offset[1] + j) * 5 + offset[2] + k));
        }
      }
    }
    const std::string file = fmt::format("rank-{}.safetensors", manifest_.files.size());
    manifest_.files.push_back(write_hashed_safetensors(
        folder_.path(), file, {{"part", Dtype::kF32, shape}},
        [&](const TensorSpec&, const ByteSink& sink) { sink(std::as_bytes(std::span(values))); }));
    tensor.slices.push_back({.file = file, .key = "part", .offset = offset, .shape = shape});
  }

  std::unique_ptr<TensorSource> open(const std::vector<TensorKind>& kinds = {TensorKind::kWeight}) {
    return open_checkpoint_source(folder_.path(), manifest_, kinds);
  }
  std::string refusal(const std::vector<TensorKind>& kinds = {TensorKind::kWeight}) {
    try {
      open(kinds);
    } catch (const CheckpointError& error) {
      return error.what();
    }
    return {};
  }

  testing::TemporaryFolder folder_;
  Manifest manifest_;
};

TEST_F(CutTensor, has_the_rows_of_all_its_boxes) {
  const std::vector<std::vector<Sizes>> cuts = {
      {{0, 3}, {0, 4}, {0, 5}},     // whole
      {{0, 1, 3}, {0, 4}, {0, 5}},  // along the first axis
      {{0, 3}, {0, 1, 4}, {0, 5}},  // along the second
      {{0, 3}, {0, 4}, {0, 2, 5}},  // along the last
      {{0, 2, 3}, {0, 1, 2, 4}, {0, 4, 5}},
  };
  for (const auto& edges : cuts) {
    cut(edges);
    const auto source = open();
    const TensorSpec& tensor = source->at("w");
    for (int64_t first = 0; first < 3; ++first) {
      for (int64_t rows = 1; first + rows <= 3; ++rows) {
        std::vector<float> values(static_cast<size_t>(rows) * 20, -1.0F), expected(values.size());
        source->read_rows(tensor, first, rows, std::as_writable_bytes(std::span(values)));
        std::iota(expected.begin(), expected.end(), static_cast<float>(first * 20));
        EXPECT_EQ(values, expected) << edges[0].size() << edges[1].size() << edges[2].size();
      }
    }
  }
}

TEST_F(CutTensor, changed_bytes_are_refused_where_they_matter) {
  cut({{0, 3}, {0, 4}, {0, 2, 5}});
  const auto path = folder_ / manifest_.files[1].name;
  std::string bytes = read_file(path, FileRole::kCheckpoint);
  bytes.back() ^= 1;
  write_file_atomically(path, bytes, FileRole::kCheckpoint);
  EXPECT_NE(refusal().find("rank-1.safetensors: its content is not what was saved"),
            std::string::npos)
      << refusal();
  EXPECT_EQ(refusal({TensorKind::kExpAvg}), "");  // it holds nothing of that kind
  fs::remove(path);
  EXPECT_NE(refusal({TensorKind::kExpAvg}).find("rank-1.safetensors"), std::string::npos);
}

TEST_F(CutTensor, a_box_that_is_another_in_its_file_is_refused) {
  cut({{0, 3}, {0, 4}, {0, 2, 5}});
  manifest_.tensors[0].slices[0].file = manifest_.files[1].name;
  EXPECT_NE(refusal().find("the manifest says F32 [3, 4, 2]"), std::string::npos) << refusal();
}

}  // namespace
}  // namespace qianli::formats
