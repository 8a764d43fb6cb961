#include "qianli/formats/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "tests/formats/bytes.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::TemporaryFolder;
constexpr auto kCode = ExitCode::kCheckpoint;

std::string with_header(const std::string& json, const std::string& data) {
  return bytes_of<uint64_t>(json.size()) + json + data;
}

SafetensorsContents parse(const std::string& bytes) {
  return parse_safetensors(as_bytes(bytes), "x.safetensors", FileRole::kCheckpoint);
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(dtype, names_and_sizes_agree_with_the_table_of_the_format) {
  for (int i = 0; i < kNumDtypes; ++i) {
    const auto dtype = static_cast<Dtype>(i);
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype);
  }
  EXPECT_EQ(bit_size(Dtype::kF4), 4);
  EXPECT_EQ(bit_size(Dtype::kF6E3M2), 6);
  EXPECT_EQ(bit_size(Dtype::kBF16), 16);
  EXPECT_EQ(bit_size(Dtype::kC64), 64);
  EXPECT_EQ(dtype_name(Dtype::kF8E4M3Fnuz), "F8_E4M3FNUZ");
  EXPECT_FALSE(dtype_from_name("F8"));
}

TEST(dtype, byte_size_refuses_overflow_and_partial_bytes) {
  using Shape = std::vector<int64_t>;
  EXPECT_EQ(byte_size(Dtype::kF32, Shape{}), 4u);
  EXPECT_EQ(byte_size(Dtype::kF32, Shape{2, 3}), 24u);
  EXPECT_EQ(byte_size(Dtype::kF32, Shape{5, 0}), 0u);
  EXPECT_EQ(byte_size(Dtype::kF4, Shape{6}), 3u);
  EXPECT_EQ(byte_size(Dtype::kF6E2M3, Shape{4}), 3u);
  EXPECT_FALSE(byte_size(Dtype::kF4, Shape{3}));
  EXPECT_FALSE(byte_size(Dtype::kF6E2M3, Shape{5}));
  EXPECT_FALSE(byte_size(Dtype::kF32, Shape{int64_t{1} << 31, int64_t{1} << 31}));
  EXPECT_FALSE(byte_size(Dtype::kF32, Shape{0, int64_t{1} << 62, 4}));
  EXPECT_FALSE(byte_size(Dtype::kU8, Shape{-1}));
}

TEST(safetensors, reads_entries_in_order_of_place_with_metadata) {
  const std::string bytes = with_header(
      R"({"b":{"dtype":"F32","shape":[],"data_offsets":[2,6]},"__metadata__":{"format":"pt","k":"v"},)"
      R"("a":{"shape":[2,1],"data_offsets":[0,2],"dtype":"U8"},)"
      R"("e":{"dtype":"I64","shape":[0,3],"data_offsets":[6,6]}}   )",
      "xyABCD");
  const auto file = parse(bytes);
  ASSERT_EQ(file.entries.size(), 3u);
  EXPECT_EQ(file.entries[0].name, "a");
  EXPECT_EQ(file.entries[0].shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(text_of(file.entries[0].bytes), "xy");
  EXPECT_EQ(file.entries[1].name, "b");
  EXPECT_TRUE(file.entries[1].shape.empty());
  EXPECT_EQ(text_of(file.entries[1].bytes), "ABCD");
  EXPECT_EQ(file.entries[2].num_elements(), 0);
  EXPECT_EQ(file.metadata, (Metadata{{"format", "pt"}, {"k", "v"}}));
}

TEST(safetensors, header_without_tensors_is_a_file) {
  EXPECT_TRUE(parse(with_header("{}", "")).entries.empty());
}

struct Attack {
  std::string json, data, reason;
};

TEST(safetensors, refuses_hostile_headers_with_the_reason) {
  const auto one = [](const std::string& fields) { return "{\"t\":{" + fields + "}}"; };
  const std::string deep = R"({"t":)" + std::string(100000, '[');
  const std::vector<Attack> attacks{
      {"", "", "does not start with '{'"},
      {R"( {"t":1})", "", "does not start with '{'"},
      {"{", "", "not valid JSON"},
      {"{} x", "", "not valid JSON"},
      {std::string("{}\0x", 4), "", "zero byte"},
      {"{\"\xff\":1}", "", "not valid JSON"},
      {"[]", "", "does not start with '{'"},
      {R"({"t":1})", "", "'t': unexpected number"},
      {R"({"t":null})", "", "unexpected null"},
      {deep, "", "unexpected array"},
      {R"({"__metadata__":{"a":1}})", "", "unexpected number"},
      {R"({"__metadata__":{"a":{}}})", "", "got an object"},
      {R"({"__metadata__":{"a":"1","a":"2"}})", "", "duplicate key 'a'"},
      {R"({"__metadata__":{},"__metadata__":{}})", "", "duplicate tensor name"},
      {R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       "x", "duplicate tensor name 't'"},
      {one(R"("dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1])"), "x",
       "duplicate field"},
      {one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1],"strides":[1])"), "x", "unknown field"},
      {one(R"("dtype":"U8","shape":[1])"), "x", "expected dtype, shape and data_offsets"},
      {one(R"("dtype":"Q8","shape":[1],"data_offsets":[0,1])"), "x", "unknown dtype 'Q8'"},
      {one(R"("dtype":["U8"],"shape":[1],"data_offsets":[0,1])"), "x", "unexpected array"},
      {one(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"), "x", "negative"},
      {one(R"("dtype":"U8","shape":[1.0],"data_offsets":[0,1])"), "x", "whole numbers"},
      {one(R"("dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1])"), "x",
       "whole numbers"},
      {one(R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1])"), "x", "overflows"},
      {one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"), "",
       "overflows"},
      {one(R"("dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0])"), "",
       "overflows"},
      {one(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])"), "xx", "no whole number of bytes"},
      {one(R"("dtype":"U8","shape":[1],"data_offsets":[0])"), "x", "got fewer"},
      {one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1,1])"), "x", "got more"},
      {one(R"("dtype":"U8","shape":[2],"data_offsets":[0,1])"), "x", "need 2 bytes"},
      {one(R"("dtype":"U8","shape":[1],"data_offsets":[1,0])"), "x", "before they begin"},
      {one(R"("dtype":"U8","shape":[2],"data_offsets":[0,2])"), "x", "truncated"},
      {one(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"), "xx", "a hole before it"},
      {one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1])"), "xx", "1 bytes after the last"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       "xxx", "overlaps another tensor"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       "xxx", "'b': a hole before it"},
  };
  for (const Attack& attack : attacks) {
    SCOPED_TRACE(attack.json.substr(0, 120));
    expect_error(kCode, attack.reason, [&] { parse(with_header(attack.json, attack.data)); });
    expect_error(kCode, "x.safetensors", [&] { parse(with_header(attack.json, attack.data)); });
  }
}

TEST(safetensors, refuses_wrong_header_sizes) {
  expect_error(kCode, "at least 8 bytes", [] { parse("{}"); });
  expect_error(kCode, "truncated", [] { parse(bytes_of<uint64_t>(3) + "{}"); });
  expect_error(kCode, "at most 100000000", [] { parse(bytes_of<uint64_t>(100'000'001) + "{}"); });
  expect_error(kCode, "at most 100000000", [] { parse(bytes_of<uint64_t>(~uint64_t{0}) + "{}"); });
}

TEST(safetensors, names_in_messages_are_cut_and_printable) {
  const std::string name(5000, 'n');
  try {
    parse(with_header("{\"\\u001b[2J" + name + "\":1}", ""));
    FAIL();
  } catch (const CheckpointError& error) {
    EXPECT_LT(std::strlen(error.what()), 500u);
    EXPECT_EQ(std::string_view(error.what()).find('\x1b'), std::string_view::npos);
  }
}

TEST(safetensors, truncation_at_every_byte_is_refused) {
  const std::string whole = with_header(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} )",
      "12345678");
  EXPECT_EQ(parse(whole).entries.size(), 1u);
  for (size_t size = 0; size < whole.size(); ++size) {
    expect_error(kCode, "x.safetensors", [&] { parse(whole.substr(0, size)); });
  }
}

TEST(safetensors, writer_lays_out_as_the_reference) {
  TemporaryFolder folder;
  const std::string f32(8, 'f'), bf16(2, 'b'), u8(3, 'u'), i64(8, 'i'), flag(1, '\1');
  const std::vector<TensorEntry> tensors{
      {{"z.u8", Dtype::kU8, {3}}, as_bytes(u8)},          {{"b", Dtype::kF32, {2}}, as_bytes(f32)},
      {{"\"\n千", Dtype::kBF16, {1, 1}}, as_bytes(bf16)}, {{"a", Dtype::kF32, {0, 4}}, {}},
      {{"flag", Dtype::kBool, {}}, as_bytes(flag)},       {{"n", Dtype::kI64, {}}, as_bytes(i64)}};
  write_safetensors(folder / "m.safetensors", tensors);
  std::string header =
      R"({"__metadata__":{"format":"pt"},"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[0,4],"data_offsets":[8,8]},)"
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},)"
      R"("\"\n千":{"dtype":"BF16","shape":[1,1],"data_offsets":[16,18]},)"
      R"("z.u8":{"dtype":"U8","shape":[3],"data_offsets":[18,21]},)"
      R"("flag":{"dtype":"BOOL","shape":[],"data_offsets":[21,22]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(slurp(folder / "m.safetensors"), with_header(header, i64 + f32 + bf16 + u8 + flag));
}

TEST(safetensors, file_of_the_reference_is_read_and_written_again_byte_for_byte) {
  const auto golden = testing::source_path("tests/golden/formats/all_dtypes.safetensors");
  const auto file = SafetensorsFile::open(golden);
  EXPECT_EQ(file.entries().size(), 22u);
  EXPECT_EQ(file.at("float8_e4m3fnuz").dtype, Dtype::kF8E4M3Fnuz);
  EXPECT_EQ(file.at("bfloat16").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.at("quote \" line \n 千").bytes[0], std::byte{7});
  EXPECT_TRUE(file.at("scalar").shape.empty());
  TemporaryFolder folder;
  auto shuffled = file.entries();
  std::ranges::reverse(shuffled);
  write_safetensors(folder / "again.safetensors", shuffled, file.metadata());
  EXPECT_EQ(slurp(folder / "again.safetensors"), slurp(golden));
}

TEST(safetensors, file_maps_what_the_writer_wrote) {
  TemporaryFolder folder;
  const std::vector<TensorSpec> specs{{"w", Dtype::kF32, {3, 2}}, {"s", Dtype::kF6E2M3, {4}}};
  const auto path = folder / "m.safetensors";
  // Bytes in two pieces, so that the streaming is what is tested.
  write_safetensors(path, specs,
                    [](const TensorSpec& tensor, const ByteSink& sink) {
                      const std::string bytes(tensor.num_bytes(), tensor.name[0]);
                      sink(as_bytes(bytes).first(1));
                      sink(as_bytes(bytes).subspan(1));
                    },
                    {{"step", "7"}});
  auto opened = SafetensorsFile::open(path);
  const SafetensorsFile file = std::move(opened);
  EXPECT_EQ(file.metadata(), (Metadata{{"format", "pt"}, {"step", "7"}}));
  EXPECT_EQ(text_of(file.at("w").bytes), std::string(24, 'w'));
  EXPECT_EQ(text_of(file.at("s").bytes), "sss");
  EXPECT_GE(file.at("w").bytes.data(), file.map()->data());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.at("w").bytes.data()) % 8, 0u);
  EXPECT_EQ(file.find("x"), nullptr);
  expect_error(kCode, "'x'", [&] { (void)file.at("x"); });
  expect_error(ExitCode::kData, "cannot open",
               [&] { SafetensorsFile::open(folder / "none", FileRole::kData); });
}

TEST(safetensors, writer_keeps_its_promises_or_throws) {
  TemporaryFolder folder;
  const auto path = folder / "m.safetensors";
  const std::vector<TensorSpec> specs{{"a", Dtype::kU8, {2}}, {"b", Dtype::kU8, {2}}};
  const auto give = [](size_t bytes) {
    return [bytes](const TensorSpec&, const ByteSink& sink) {
      sink(as_bytes(std::string(bytes, 'x')));
    };
  };
  EXPECT_THROW(write_safetensors(path, specs, give(1)), std::logic_error);
  EXPECT_THROW(write_safetensors(path, specs, give(3)), std::logic_error);
  const auto refused = [&](std::vector<TensorSpec> tensors, std::string_view reason) {
    expect_error(kCode, reason, [&] { write_safetensors(path, tensors, give(2)); });
  };
  refused({specs[0], specs[0]}, "two tensors named 'a'");
  refused({{"__metadata__", Dtype::kU8, {2}}}, "__metadata__");
  refused({{"a", Dtype::kU8, {-2}}}, "no valid size");
  refused({{"\xff", Dtype::kU8, {2}}}, "not valid UTF-8");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace qianli::formats
