#include "qianli/formats/tensor_source.h"

#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <cstring>
#include <map>
#include <stdexcept>

#include "qianli/base/threads.h"
#include "qianli/formats/block_scaled_source.h"
#include "qianli/formats/number_formats.h"
#include "qianli/formats/safetensors_folder.h"
#include "tests/formats/bytes.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::TemporaryFolder;
constexpr auto kCode = ExitCode::kCheckpoint;

// Writes model.safetensors into `folder` and opens it.
struct Written {
  std::vector<TensorSpec> specs;
  std::map<std::string, std::string> bytes;

  template <class T>
  void add(const std::string& name, Dtype dtype, std::vector<int64_t> shape,
           const std::vector<T>& values) {
    specs.push_back({name, dtype, std::move(shape)});
    bytes[name].assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  std::unique_ptr<TensorSource> open(const fs::path& folder) const {
    write_sharded(folder, specs, uint64_t{1} << 30,
                  [&](const TensorSpec& tensor, const ByteSink& sink) {
                    sink(as_bytes(bytes.at(tensor.name)));
                  });
    return open_tensor_source(folder);
  }
};

std::vector<float> floats(const TensorSource& source, std::string_view name) {
  const TensorSpec& tensor = source.at(name);
  std::vector<float> out(static_cast<size_t>(tensor.num_elements()));
  source.read(tensor, std::as_writable_bytes(std::span(out)));
  return out;
}

std::string rows(const TensorSource& source, std::string_view name, int64_t first, int64_t count) {
  const TensorSpec& tensor = source.at(name);
  std::string out(row_bytes(tensor) * static_cast<uint64_t>(count), '\0');
  source.read_rows(tensor, first, count, std::as_writable_bytes(std::span(out)));
  return out;
}

TEST(tensor_source, reads_rows_of_a_file_and_of_a_folder) {
  const TemporaryFolder place;
  Written model;
  model.add<uint8_t>("m", Dtype::kU8, {3, 2}, {'a', 'b', 'c', 'd', 'e', 'f'});
  model.add<float>("s", Dtype::kF32, {}, {1.5f});
  model.add<float>("empty", Dtype::kF32, {0, 4}, {});
  const auto folder = model.open(place.path());
  const auto file = open_tensor_source(place / "model.safetensors");
  for (const TensorSource* source : {folder.get(), file.get()}) {
    EXPECT_EQ(source->tensors().size(), 3u);
    EXPECT_EQ(rows(*source, "m", 0, 3), "abcdef");
    EXPECT_EQ(rows(*source, "m", 1, 1), "cd");
    EXPECT_EQ(rows(*source, "m", 3, 0), "");
    EXPECT_EQ(floats(*source, "s"), std::vector<float>{1.5f});
    EXPECT_TRUE(floats(*source, "empty").empty());
    EXPECT_EQ(source->stored_as(source->at("m")), "U8");
    ASSERT_TRUE(source->view(source->at("m")));
    EXPECT_EQ(source->view(source->at("m"))->size(), 6u);
    EXPECT_EQ(source->find("x"), nullptr);
    expect_error(kCode, "expected a tensor 'x', found none", [&] { source->at("x"); });
  }
}

TEST(tensor_source, rows_outside_and_strange_tensors_are_mistakes_of_the_caller) {
  const TemporaryFolder place;
  Written model;
  model.add<uint8_t>("m", Dtype::kU8, {3, 2}, {1, 2, 3, 4, 5, 6});
  const auto source = model.open(place.path());
  std::vector<std::byte> out(4);
  const TensorSpec& tensor = source->at("m");
  EXPECT_THROW(source->read_rows(tensor, 2, 2, out), std::logic_error);
  EXPECT_THROW(source->read_rows(tensor, -1, 2, out), std::logic_error);
  EXPECT_THROW(source->read_rows(tensor, 0, 1, out), std::logic_error);
  EXPECT_THROW(source->read_rows(tensor, INT64_MAX, INT64_MAX, out), std::logic_error);
  const TensorSpec copy = tensor;
  EXPECT_THROW(source->view(copy), std::logic_error);
}

TEST(tensor_source, nothing_at_the_path_is_said_so) {
  const TemporaryFolder place;
  expect_error(kCode, "expected", [&] { open_tensor_source(place.path()); });
  expect_error(kCode, "absent", [&] { open_tensor_source(place / "absent"); });
}

// A float8 matrix of 130 x 130 in blocks of 128 has 2 x 2 scales.
Written block_scaled() {
  Written model;
  std::vector<uint8_t> codes(130 * 130);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i % 127);
  model.add("l.weight", Dtype::kF8E4M3, {130, 130}, codes);
  model.add<float>("l.weight_scale_inv", Dtype::kF32, {2, 2}, {0.5f, 3.0f, -1.0f, 0.0625f});
  model.add<float>("norm", Dtype::kF32, {2}, {7, 8});
  return model;
}

TEST(block_scaled_source, float8_weights_are_multiplied_by_the_scale_of_their_block) {
  const TemporaryFolder place;
  const Written model = block_scaled();
  auto inner = model.open(place.path());
  EXPECT_TRUE(has_block_scaled_tensors(*inner));
  const auto source = dequantize_blocks(std::move(inner));
  ASSERT_EQ(source->tensors().size(), 2u);
  const TensorSpec& weight = source->at("l.weight");
  EXPECT_EQ(weight.dtype, Dtype::kF32);
  EXPECT_EQ(weight.shape, (std::vector<int64_t>{130, 130}));
  EXPECT_EQ(source->stored_as(weight), "F8_E4M3 in blocks of 128 x 128");
  EXPECT_FALSE(source->view(weight));
  const std::vector<float> all = floats(*source, "l.weight");
  const float scales[2][2] = {{0.5f, 3.0f}, {-1.0f, 0.0625f}};
  const std::string& stored = model.bytes.at("l.weight");
  for (size_t r = 0; r < 130; ++r) {
    for (size_t c = 0; c < 130; ++c) {
      float value = 0;
      to_float32(Dtype::kF8E4M3, as_bytes(stored).subspan(r * 130 + c, 1), std::span(&value, 1));
      ASSERT_EQ(all[r * 130 + c], value * scales[r / 128][c / 128]) << r << ", " << c;
    }
  }
  // Rows across the border of two blocks, in small pieces and as a stream.
  const std::string middle = rows(*source, "l.weight", 126, 4);
  EXPECT_EQ(std::memcmp(middle.data(), all.data() + 126 * 130, middle.size()), 0);
  std::string streamed;
  size_t pieces = 0;
  stream(
      *source, weight,
      [&](std::span<const std::byte> piece) {
        streamed.append(reinterpret_cast<const char*>(piece.data()), piece.size());
        ++pieces;
      },
      3 * 130 * sizeof(float));
  EXPECT_EQ(pieces, 44u);
  EXPECT_EQ(std::memcmp(streamed.data(), all.data(), streamed.size()), 0);
  // Other tensors are as they were.
  EXPECT_EQ(floats(*source, "norm"), (std::vector<float>{7, 8}));
  EXPECT_TRUE(source->view(source->at("norm")));
  EXPECT_EQ(source->find("l.weight_scale_inv"), nullptr);
}

TEST(block_scaled_source, scales_that_do_not_belong_are_refused) {
  const TemporaryFolder place;
  auto source = block_scaled().open(place.path());
  expect_error(kCode, "of shape [3, 3], got F32 of [2, 2]", [&] {
    dequantize_blocks(std::move(source), {64, 64});
  });
}

TEST(block_scaled_source, mxfp4_experts_are_what_transformers_makes_of_them) {
  const auto source = dequantize_blocks(
      open_tensor_source(testing::source_path("tests/golden/formats/numbers.safetensors")));
  const TensorSpec& experts = source->at("mxfp4.experts");
  EXPECT_EQ(experts.shape, (std::vector<int64_t>{2, 64, 18}));
  EXPECT_EQ(source->stored_as(experts), "MXFP4");
  const std::vector<float> expected = floats(*source, "mxfp4.expected");
  EXPECT_EQ(floats(*source, "mxfp4.experts"), expected);
  const std::string second = rows(*source, "mxfp4.experts", 1, 1);
  EXPECT_EQ(std::memcmp(second.data(), expected.data() + 64 * 18, second.size()), 0);
}

TEST(block_scaled_source, mxfp4_rows_are_what_transformers_makes_of_them) {
  const auto source = dequantize_blocks(
      open_tensor_source(testing::source_path("tests/golden/formats/packed_rows.safetensors")));
  ASSERT_EQ(source->tensors().size(), 2u);
  const TensorSpec& weight = source->at("w1.weight");
  EXPECT_EQ(weight.dtype, Dtype::kF32);
  EXPECT_EQ(weight.shape, (std::vector<int64_t>{8, 128}));
  EXPECT_EQ(source->stored_as(weight), "MXFP4");
  const std::vector<float> expected = floats(*source, "expected");
  EXPECT_EQ(floats(*source, "w1.weight"), expected);
  const std::string middle = rows(*source, "w1.weight", 3, 2);
  EXPECT_EQ(std::memcmp(middle.data(), expected.data() + 3 * 128, middle.size()), 0);
}

// DeepSeek-V4's names and scales: powers of two beside the weight.
TEST(block_scaled_source, scales_may_stand_beside_the_weight) {
  Written model;
  std::vector<uint8_t> codes(130 * 3);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i % 127);
  model.add("l.weight", Dtype::kF8E4M3, {130, 3}, codes);
  model.add("l.scale", Dtype::kF8E8M0, {2, 1}, std::vector<uint8_t>{126, 130});
  const TemporaryFolder place;
  const auto source = dequantize_blocks(model.open(place.path()));
  ASSERT_EQ(source->tensors().size(), 1u);
  const std::vector<float> all = floats(*source, "l.weight");
  std::vector<float> numbers(codes.size());
  to_float32(Dtype::kF8E4M3, std::as_bytes(std::span(codes)), numbers);
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(all[i], numbers[i] * (i / 3 < 128 ? 0.5f : 8.0f)) << i;
  }
}

TEST(block_scaled_source, mxfp4_rows_that_do_not_fit_their_scales_are_refused) {
  Written model;
  model.add("l.weight", Dtype::kI8, {2, 32}, std::vector<uint8_t>(64));
  model.add("l.scale", Dtype::kF8E8M0, {2, 3}, std::vector<uint8_t>(6));
  const TemporaryFolder place;
  auto source = model.open(place.path());
  expect_error(kCode, "of shape [2, 2], got F8_E8M0 of [2, 3]",
               [&] { dequantize_blocks(std::move(source)); });
}

TEST(tensor_source, threads_read_at_once) {
  const TemporaryFolder place;
  const auto source = dequantize_blocks(block_scaled().open(place.path()));
  const std::vector<float> all = floats(*source, "l.weight");
  std::atomic<int> wrong = 0;
  parallel_for(64, 4, [&](int64_t i) {
    const std::string some = rows(*source, "l.weight", i, 3);
    if (std::memcmp(some.data(), all.data() + i * 130, some.size()) != 0) ++wrong;
  });
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace qianli::formats
