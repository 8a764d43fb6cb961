// Folders whose weights are stored in few bits.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/number_formats.h"
#include "qianli/formats/safetensors_folder.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::Dtype;

constexpr const char* kName = "model.layers.0.self_attn.q_proj.weight";
constexpr const char* kParameter = "decoder.layers.0.self_attention.linear_qkv.weight";
constexpr int64_t kBlock = 12;  // does not divide the matrix

uint8_t code_at(size_t i) { return static_cast<uint8_t>(i * 37 % 127); }
float scale_at(size_t i) { return 0.01f * static_cast<float>(i + 1); }

// The golden model with one projection in float8 blocks; `with_scales` tells them too.
class Fp8Folder {
 public:
  explicit Fp8Folder(const std::string& method, bool with_scales = true) {
    const fs::path source = testing::source_path("tests/golden/models/llama2");
    Json config = read_json(source / "config.json", FileRole::kConfig);
    config["quantization_config"] = {{"quant_method", method},
                                     {"weight_block_size", {kBlock, kBlock}}};
    write_file_atomically(path() / "config.json", config.dump(), FileRole::kConfig);
    const auto model = formats::SafetensorsFolder::open(source);
    std::vector<formats::TensorSpec> specs;
    for (const formats::TensorEntry* entry : model.entries()) {
      specs.push_back(*entry);
      if (entry->name != kName) continue;
      shape = entry->shape;
      specs.back().dtype = Dtype::kF8E4M3;
      if (!with_scales) continue;
      specs.push_back({std::string(kName) + "_scale_inv", Dtype::kF32, scale_shape()});
    }
    formats::write_sharded(path(), specs, UINT64_MAX, [&](const auto& spec, const auto& sink) {
      if (spec.dtype == Dtype::kF8E4M3) return sink(codes());
      if (spec.name.ends_with("_scale_inv")) return sink(std::as_bytes(std::span(scales())));
      sink(model.at(spec.name).bytes);
    });
  }

  fs::path path() const { return folder_.path(); }
  std::vector<int64_t> scale_shape() const {
    return {(shape[0] + kBlock - 1) / kBlock, (shape[1] + kBlock - 1) / kBlock};
  }
  float expected(int64_t row, int64_t column) {
    float value = 0;
    const std::byte code{code_at(static_cast<size_t>(row * shape[1] + column))};
    formats::to_float32(Dtype::kF8E4M3, {&code, 1}, {&value, 1});
    return value * scale_at(static_cast<size_t>(row / kBlock * scale_shape()[1] + column / kBlock));
  }

  std::vector<int64_t> shape;

 private:
  const std::vector<std::byte>& codes() {
    codes_.resize(static_cast<size_t>(shape[0] * shape[1]));
    for (size_t i = 0; i < codes_.size(); ++i) codes_[i] = std::byte{code_at(i)};
    return codes_;
  }
  const std::vector<float>& scales() {
    scales_.resize(static_cast<size_t>(scale_shape()[0] * scale_shape()[1]));
    for (size_t i = 0; i < scales_.size(); ++i) scales_[i] = scale_at(i);
    return scales_;
  }
  testing::TemporaryFolder folder_;
  std::vector<std::byte> codes_;
  std::vector<float> scales_;
};

TEST(Quantized, float8_blocks_become_what_they_stand_for) {
  Fp8Folder folder("fp8");
  const testing::TemporaryFolder out;
  const auto source = open_model(folder.path());
  EXPECT_TRUE(source->reader->unused().empty());
  write_megatron(*source, out / "megatron",
                 {.dtype = Dtype::kF32, .layout = {.tensor = 2, .pipeline = 2}}, {});
  const auto model = open_model(out / "megatron");
  verify(*source, *model);
  write_hugging_face(*model, out / "back", {}, {});
  const auto back = formats::SafetensorsFolder::open(out / "back");
  const formats::TensorEntry& entry = back.at(kName);
  ASSERT_EQ(entry.dtype, Dtype::kF32);
  for (int64_t r = 0; r < folder.shape[0]; ++r) {
    for (int64_t c = 0; c < folder.shape[1]; ++c) {
      float value = 0;
      std::memcpy(&value, entry.bytes.data() + (r * folder.shape[1] + c) * 4, 4);
      ASSERT_EQ(value, folder.expected(r, c)) << r << ", " << c;
    }
  }
  EXPECT_FALSE(
      read_json(out / "back" / "config.json", FileRole::kConfig).contains("quantization_config"));
}

TEST(Quantized, are_written_in_bf16_where_no_type_is_asked_for) {
  Fp8Folder folder("fp8");
  const testing::TemporaryFolder out;
  const auto source = open_model(folder.path());
  write_hugging_face(*source, out / "hf", {}, {});
  verify(*source, *open_model(out / "hf"));
  const auto written = formats::SafetensorsFolder::open(out / "hf");
  EXPECT_EQ(written.at(kName).dtype, Dtype::kBF16);
  EXPECT_EQ(written.at("model.norm.weight").dtype, Dtype::kF32);
}

void expect_refusal(const fs::path& path, const std::string& reason) {
  try {
    open_model(path);
    FAIL() << "expected: " << reason;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
  }
}

TEST(Quantized, other_methods_and_missing_scales_are_refused) {
  expect_refusal(Fp8Folder("gptq").path(), "got \"gptq\"");
  expect_refusal(Fp8Folder("fp8", /*with_scales=*/false).path(), "got F8_E4M3");
}

}  // namespace
}  // namespace qianli::convert
