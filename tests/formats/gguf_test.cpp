#include "qianli/formats/gguf.h"

#include <gtest/gtest.h>

#include <fmt/core.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "qianli/formats/number_formats.h"
#include "qianli/formats/safetensors.h"
#include "tests/formats/bytes.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::source_path;
using testing::TemporaryFolder;
constexpr auto kCode = ExitCode::kCheckpoint;

fs::path golden(const std::string& name) { return source_path("tests/golden/formats/" + name); }

std::vector<float> floats(const TensorSource& source, std::string_view name) {
  const TensorSpec& tensor = source.at(name);
  std::vector<std::byte> bytes(tensor.num_bytes());
  source.read(tensor, bytes);
  std::vector<float> out(static_cast<size_t>(tensor.num_elements()));
  convert_numbers(tensor.dtype, bytes, Dtype::kF32, std::as_writable_bytes(std::span(out)));
  return out;
}

std::vector<float> golden_floats(const SafetensorsFile& file, std::string_view name) {
  const TensorEntry& entry = file.at(name);
  std::vector<float> out(entry.bytes.size() / sizeof(float));
  std::memcpy(out.data(), entry.bytes.data(), entry.bytes.size());
  return out;
}

std::string text_entry(const std::string& key, uint32_t type, const std::string& value) {
  return bytes_of<uint64_t>(key.size()) + key + bytes_of(type) + value;
}
std::string tensor_info(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                        uint64_t offset) {
  std::string bytes =
      bytes_of<uint64_t>(name.size()) + name + bytes_of(static_cast<uint32_t>(dims.size()));
  for (const uint64_t size : dims) bytes += bytes_of(size);
  return bytes + bytes_of(type) + bytes_of(offset);
}
std::string front(uint64_t tensors, uint64_t entries, uint32_t version = 3) {
  return "GGUF" + bytes_of(version) + bytes_of(tensors) + bytes_of(entries);
}
std::string padded(std::string bytes) {
  bytes.resize((bytes.size() + 31) / 32 * 32);
  return bytes;
}
GgufContents parse(const std::string& bytes) {
  return parse_gguf(as_bytes(bytes), "x.gguf", FileRole::kCheckpoint);
}

TEST(gguf, reads_what_gguf_py_writes) {
  const auto file = GgufFile::open(golden("small.gguf"));
  EXPECT_EQ(file->text("general.architecture"), "llama");
  EXPECT_EQ(file->integer("llama.block_count"), 2);
  EXPECT_EQ(file->integer("large"), int64_t{1} << 40);
  EXPECT_EQ(file->integer("negative"), -7);
  EXPECT_EQ(file->number("llama.rope.freq_base"), 10000.5);
  EXPECT_EQ(file->number("llama.block_count"), 2.0);
  EXPECT_EQ(file->boolean("tokenizer.ggml.add_bos_token"), true);
  EXPECT_EQ(file->texts("tokenizer.ggml.tokens"), (std::vector<std::string>{"a", "", "千"}));
  EXPECT_EQ(file->integers("tokenizer.ggml.token_type"), (std::vector<int64_t>{1, -3, 6}));
  EXPECT_EQ(file->numbers("tokenizer.ggml.scores"), (std::vector<double>{0.5, -1}));
  EXPECT_EQ(file->integer("absent"), std::nullopt);
  expect_error(kCode, "key 'general.name': expected an integer",
               [&] { file->integer("general.name"); });
  expect_error(kCode, "key 'large': expected an array", [&] { file->texts("large"); });
  expect_error(kCode, "expected texts", [&] { file->texts("tokenizer.ggml.scores"); });
  expect_error(kCode, "expected integers", [&] { file->integers("tokenizer.ggml.scores"); });

  const auto source = open_tensor_source(golden("small.gguf"));
  std::vector<float> expected(192);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] = static_cast<float>(i) - 50.5f;
  EXPECT_EQ(source->at("f32").shape, (std::vector<int64_t>{3, 64}));
  EXPECT_EQ(floats(*source, "f32"), expected);
  const auto bf16 = floats(*source, "bf16");
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(bf16[i], expected[i], 0.5);
  EXPECT_EQ(source->at("bf16").dtype, Dtype::kBF16);
  EXPECT_EQ(source->at("f16").shape, (std::vector<int64_t>{3, 5}));
  EXPECT_EQ(floats(*source, "f16")[5], expected[64]);
  EXPECT_EQ(source->at("q8_0").dtype, Dtype::kF32);
  EXPECT_EQ(source->stored_as(source->at("q8_0")), "Q8_0");
  const auto q8_0 = floats(*source, "q8_0");
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(q8_0[i], expected[i], 0.6);
  EXPECT_EQ(source->at("vector").dtype, Dtype::kI32);
}

TEST(gguf, blocks_of_every_kind_are_what_gguf_py_makes_of_them) {
  const auto source = open_tensor_source(golden("blocks.gguf"));
  const auto expected = SafetensorsFile::open(golden("blocks.safetensors"));
  size_t kinds = 0;
  for (const TensorSpec& tensor : source->tensors()) {
    if (tensor.name == "IQ4_NL") continue;
    EXPECT_EQ(source->stored_as(tensor), tensor.name);
    const auto actual = floats(*source, tensor.name);
    const auto wanted = golden_floats(expected, tensor.name);
    ASSERT_EQ(actual.size(), wanted.size()) << tensor.name;
    for (size_t i = 0; i < actual.size(); ++i) {
      if (std::isnan(actual[i]) && std::isnan(wanted[i])) continue;
      ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(wanted[i]))
          << tensor.name << ", element " << i;
    }
    // One row of three.
    std::vector<float> row(actual.size() / 3);
    source->read_rows(tensor, 1, 1, std::as_writable_bytes(std::span(row)));
    EXPECT_EQ(std::memcmp(row.data(), actual.data() + row.size(), row.size() * sizeof(float)), 0);
    ++kinds;
  }
  EXPECT_EQ(kinds, 11u);
  expect_error(kCode, "tensor 'IQ4_NL': numbers of type IQ4_NL are not read",
               [&] { floats(*source, "IQ4_NL"); });
}

TEST(gguf, q8_k_is_a_scale_and_256_signed_bytes) {
  std::string block = bytes_of(0.25f);
  for (int i = 0; i < 256; ++i) block += static_cast<char>(i - 128);
  block += std::string(32, '\x7f');  // sums of groups, which are not used
  std::vector<float> out(256);
  dequantize(GgmlType::kQ8_K, as_bytes(block), out);
  for (int i = 0; i < 256; ++i) {
    EXPECT_EQ(out[static_cast<size_t>(i)], 0.25f * static_cast<float>(i - 128));
  }
}

TEST(gguf, rows_of_a_vector_may_begin_inside_a_block) {
  std::string blocks;
  for (int i = 0; i < 200; ++i) {
    blocks += bytes_of(float32_to_f16(static_cast<float>(i))) + std::string(32, '\1');
  }
  const TemporaryFolder place;
  spill(place / "v.gguf", padded(front(1, 0) + tensor_info("v", {6400}, 8, 0)) + blocks);
  const auto source = open_tensor_source(place / "v.gguf");
  const auto all = floats(*source, "v");
  for (const auto& [first, count] : {std::pair{0, 1}, {31, 2}, {33, 4000}, {6399, 1}, {64, 32}}) {
    std::vector<float> part(static_cast<size_t>(count));
    source->read_rows(source->at("v"), first, count, std::as_writable_bytes(std::span(part)));
    for (size_t i = 0; i < part.size(); ++i) {
      ASSERT_EQ(part[i], all[static_cast<size_t>(first) + i]);
      ASSERT_EQ(part[i], static_cast<float>((static_cast<size_t>(first) + i) / 32));
    }
  }
}

TEST(gguf, q8_0_is_quantised_as_by_gguf_py) {
  const auto expected = SafetensorsFile::open(golden("blocks.safetensors"));
  const auto input = golden_floats(expected, "q8_input");
  const TensorEntry& blocks = expected.at("q8_blocks");
  std::string out(blocks.bytes.size(), '\0');
  quantize_q8_0(input, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(std::memcmp(out.data(), blocks.bytes.data(), out.size()), 0);
  // Nothing else than a clear rule is asked of infinities: no undefined conversion.
  const std::vector<float> wild(32, INFINITY);
  quantize_q8_0(wild, std::as_writable_bytes(std::span(out)).first(34));
}

TEST(gguf, q4_0_is_quantised_as_by_gguf_py) {
  const auto expected = SafetensorsFile::open(golden("blocks.safetensors"));
  const auto input = golden_floats(expected, "q8_input");
  const TensorEntry& blocks = expected.at("q4_blocks");
  std::string out(blocks.bytes.size(), '\0');
  quantize_q4_0(input, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(std::memcmp(out.data(), blocks.bytes.data(), out.size()), 0);
  const std::vector<float> wild(32, INFINITY);
  quantize_q4_0(wild, std::as_writable_bytes(std::span(out)).first(18));
}

TEST(gguf, numbers_of_a_block_quantise_to_the_block) {
  const auto expected = SafetensorsFile::open(golden("blocks.safetensors"));
  const auto input = golden_floats(expected, "q8_input");
  for (const auto& [type, bytes, quantize] :
       {std::tuple{GgmlType::kQ8_0, 34, &quantize_q8_0}, {GgmlType::kQ4_0, 18, &quantize_q4_0}}) {
    // Scales that half precision has no number for are lost the first time.
    const auto values = std::span(input).subspan(4 * 64);
    std::string once(values.size() / 32 * static_cast<size_t>(bytes), '\0'), again = once;
    quantize(values, std::as_writable_bytes(std::span(once)));
    std::vector<float> numbers(values.size());
    dequantize(type, as_bytes(once), numbers);
    quantize(numbers, std::as_writable_bytes(std::span(again)));
    EXPECT_EQ(once, again) << bytes;
  }
}

TEST(gguf, writes_the_bytes_of_gguf_py) {
  const auto file = GgufFile::open(golden("small.gguf"));
  const auto source = open_gguf_source(golden("small.gguf"));
  const GgufMetadata metadata{{"general.architecture", std::string("llama")},
                              {"llama.block_count", int64_t{2}},
                              {"large", int64_t{1} << 40},
                              {"negative", int64_t{-7}},
                              {"llama.rope.freq_base", 10000.5},
                              {"tokenizer.ggml.add_bos_token", true},
                              {"general.name", std::string("千 li")},
                              {"tokenizer.ggml.tokens", std::vector<std::string>{"a", "", "千"}},
                              {"tokenizer.ggml.token_type", std::vector<int32_t>{1, -3, 6}},
                              {"tokenizer.ggml.scores", std::vector<float>{0.5f, -1}}};
  std::vector<GgufTensorToWrite> tensors;
  for (const GgufTensor& tensor : file->tensors()) {
    tensors.push_back({tensor.spec.name, tensor.spec.shape, tensor.type});
  }
  const TemporaryFolder place;
  write_gguf(place / "out.gguf", metadata, tensors,
             [&](const TensorSpec& tensor, const ByteSink& sink) {
               // The numbers before they were quantised are those of f32.
               const bool blocks = tensor.name == "q8_0";
               const TensorSpec& stored = source->at(blocks ? "f32" : tensor.name);
               EXPECT_EQ(tensor.dtype, stored.dtype);
               const auto bytes = *source->view(stored);
               sink(bytes.first(5));
               sink(bytes.subspan(5));
             });
  EXPECT_EQ(slurp(place / "out.gguf"), slurp(golden("small.gguf")));
}

TEST(gguf, what_cannot_be_written_is_said_so) {
  const TemporaryFolder place;
  const auto write = [&](const GgufMetadata& metadata,
                         const std::vector<GgufTensorToWrite>& tensors) {
    write_gguf(place / "out.gguf", metadata, tensors, [](const TensorSpec&, const ByteSink&) {});
  };
  expect_error(kCode, "type Q4_K is not written", [&] {
    write({}, {{"t", {256}, GgmlType::kQ4_K}});
  });
  expect_error(kCode, "expected rows of a multiple of 32", [&] {
    write({}, {{"t", {2, 33}, GgmlType::kQ8_0}});
  });
  expect_error(kCode, "two tensors named 't'", [&] { write({}, {{"t", {1}}, {"t", {1}}}); });
  expect_error(kCode, "the key 'k' stands twice", [&] { write({{"k", true}, {"k", false}}, {}); });
  expect_error(kCode, "no valid size", [&] { write({}, {{"t", {-1}}}); });
  EXPECT_THROW(write({}, {{"t", {1}}}), std::logic_error);
  EXPECT_TRUE(fs::is_empty(place.path()));
}

TEST(gguf, models_in_several_files_are_one) {
  const TemporaryFolder place;
  const float value = 3;
  const auto write = [&](int number, const std::string& name) {
    write_gguf(place / fmt::format("m-{:05}-of-00002.gguf", number),
               {{"split.count", int64_t{2}}, {"split.no", int64_t{number - 1}}}, {{name, {1}}},
               [&](const TensorSpec&, const ByteSink& sink) {
                 sink(std::as_bytes(std::span(&value, 1)));
               });
  };
  write(1, "a");
  expect_error(kCode, "m-00002-of-00002.gguf",
               [&] { open_gguf_source(place / "m-00001-of-00002.gguf"); });
  write(2, "b");
  const auto source = open_gguf_source(place / "m-00001-of-00002.gguf");
  EXPECT_EQ(source->tensors().size(), 2u);
  EXPECT_EQ(floats(*source, "b"), std::vector<float>{3});
  expect_error(kCode, "expected the first",
               [&] { open_gguf_source(place / "m-00002-of-00002.gguf"); });
  write(2, "a");
  expect_error(kCode, "two tensors named 'a'",
               [&] { open_gguf_source(place / "m-00001-of-00002.gguf"); });
}

TEST(gguf, hostile_files_are_refused_with_the_reason) {
  const uint64_t most = UINT64_MAX;
  const std::string data(64, 'x');
  const auto one = [&](const std::string& info) { return padded(front(1, 0) + info) + data; };
  const auto entry = [&](uint32_t type, const std::string& value) {
    return padded(front(0, 1) + text_entry("k", type, value));
  };
  const std::string array = bytes_of(9u), alignment = "general.alignment";
  const std::pair<std::string, std::string_view> attacks[] = {
      {"", "truncated"},
      {"GGML" + bytes_of(3u), "not a GGUF file"},
      {front(0, 0, 1), "expected GGUF version 2 or 3, got 1"},
      {front(0, 0, 0x03000000), "big-endian"},
      {front(most, 0), "tensors do not fit"},
      {front(0, most), "entries of metadata do not fit"},
      {front(0, 1), "entries of metadata do not fit"},
      {front(0, 1) + bytes_of(most) + data, "truncated"},
      {padded(front(0, 1) + bytes_of<uint64_t>(70000) + std::string(80000, 'k')),
       "a name of 70000"},
      {entry(13, ""), "unknown type 13"},
      {entry(8, bytes_of(most)), "truncated"},
      {entry(9, bytes_of(4u) + bytes_of(most)), "elements do not fit"},
      {entry(9, bytes_of(8u) + bytes_of<uint64_t>(most / 8)), "elements do not fit"},
      {entry(9, bytes_of(8u) + bytes_of<uint64_t>(1) + bytes_of(most)), "truncated"},
      {entry(9, bytes_of(9u) + bytes_of<uint64_t>(1)), "array of arrays"},
      {padded(front(0, 2) + text_entry("k", 7, "\1") + text_entry("k", 7, "\1")), "stands twice"},
      {padded(front(0, 1) + text_entry(alignment, 4, bytes_of(33u))), "power of two"},
      {padded(front(0, 1) + text_entry(alignment, 4, bytes_of(0u))), "power of two"},
      {padded(front(0, 1) + text_entry(alignment, 8, bytes_of<uint64_t>(0))), "power of two"},
      {one(tensor_info("t", {1, 1, 1, 1, 1, 1, 1, 1, 1}, 0, 0)), "9 dimensions"},
      {one(bytes_of<uint64_t>(1) + "t" + bytes_of(0xffffffffu) + data), "dimensions"},
      {one(tensor_info("t", {most}, 0, 0)), "overflows"},
      {one(tensor_info("t", {uint64_t{1} << 31, uint64_t{1} << 31}, 0, 0)), "overflows"},
      {one(tensor_info("t", {16}, 4, 0)), "unknown type 4"},
      {one(tensor_info("t", {16}, 99, 0)), "unknown type 99"},
      {one(tensor_info("t", {33}, 8, 0)), "rows of 33 are no whole blocks of Q8_0"},
      {one(tensor_info("t", {16}, 0, 4)), "no multiple of 32"},
      {one(tensor_info("t", {17}, 0, 0)), "truncated"},
      {one(tensor_info("t", {16}, 0, most - 31)), "truncated"},
      {one(tensor_info("t", {16}, 0, 64)), "truncated"},
      {padded(front(2, 0) + tensor_info("t", {16}, 0, 0) + tensor_info("u", {8}, 0, 32)) + data,
       "'u' overlaps 't'"},
  };
  for (const auto& [bytes, reason] : attacks) {
    expect_error(kCode, reason, [&bytes = bytes] { parse(bytes); });
  }
  EXPECT_EQ(parse(one(tensor_info("t", {16}, 0, 0))).tensors[0].bytes.size(), 64u);
}

TEST(gguf, truncated_anywhere_is_refused) {
  const std::string whole = slurp(golden("small.gguf"));
  // The last tensor has 28 bytes and 4 of padding, which may be missing.
  for (size_t size = 0; size < whole.size() - 4; ++size) {
    EXPECT_THROW(parse(whole.substr(0, size)), CheckpointError) << size;
  }
  EXPECT_EQ(parse(whole.substr(0, whole.size() - 4)).tensors.size(), 5u);
}

}  // namespace
}  // namespace qianli::formats
