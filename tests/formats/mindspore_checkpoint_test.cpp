#include "qianli/formats/mindspore_checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <stdexcept>

#include "qianli/formats/number_formats.h"
#include "tests/formats/bytes.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::source_path;
using testing::TemporaryFolder;
constexpr auto kCode = ExitCode::kCheckpoint;

fs::path golden(const std::string& name) { return source_path("tests/golden/formats/" + name); }

MindsporeContents parse(const std::string& bytes) {
  return parse_mindspore(as_bytes(bytes), "x.ckpt", FileRole::kCheckpoint);
}

std::string bytes_in(const TensorSource& source, const TensorSpec& tensor) {
  std::string out(tensor.num_bytes(), '\0');
  source.read(tensor, std::as_writable_bytes(std::span(out)));
  return out;
}

// Messages with lengths below 128.
std::string part(int number, const std::string& bytes) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}
std::string value(const std::string& tag, const std::string& tensor) {
  return part(1, part(1, tag) + part(2, tensor));
}
std::string tensor(const std::string& dims, const std::string& type, const std::string& content) {
  return dims + part(2, type) + part(3, content);
}

TEST(mindspore_checkpoint, reads_what_mindspore_writes) {
  for (const std::string name : {"mindspore_crc.ckpt", "mindspore_text.ckpt"}) {
    const auto source = open_tensor_source(golden(name));
    size_t matrices = 0;
    for (const TensorSpec& spec : source->tensors()) {
      if (spec.shape != std::vector<int64_t>{2, 3}) continue;
      ++matrices;
      const std::string bytes = bytes_in(*source, spec);
      if (!is_floating_point(spec.dtype)) {
        EXPECT_EQ(bytes[0], 0);
        EXPECT_NE(bytes[bytes.size() / 6 * 5], 0) << spec.name;
        continue;
      }
      std::vector<float> values(6);
      to_float32(spec.dtype, as_bytes(bytes), values);
      EXPECT_EQ(values, (std::vector<float>{0, 1, 2, 3, 4, 5})) << spec.name;
    }
    EXPECT_EQ(matrices, 13u);
    EXPECT_EQ(source->at("bfloat16").dtype, Dtype::kBF16);
    EXPECT_EQ(source->at("bool_").dtype, Dtype::kBool);
    EXPECT_TRUE(source->at("scalar").shape.empty());
    EXPECT_EQ(bytes_in(*source, source->at("scalar")), bytes_of(1.5f));
  }
  const auto contents = parse(slurp(golden("mindspore_text.ckpt")));
  EXPECT_EQ(contents.texts.at("note"), "千 li");
}

TEST(mindspore_checkpoint, reads_the_bytes_of_the_documentation) {
  const std::string bytes = from_hex(
                                "0a34"
                                "0a09"
                                "745f666c6f61743332"
                                "1227"
                                "0802"
                                "0803"
                                "1207"
                                "466c6f61743332"
                                "1a18") +
                            std::string(24, '\1') +
                            from_hex(
                                "0a19"
                                "0a06"
                                "7363616c6172"
                                "120f"
                                "1207"
                                "466c6f61743332"
                                "1a04"
                                "0000c03f");
  const auto contents = parse(bytes);
  ASSERT_EQ(contents.tensors.size(), 2u);
  EXPECT_EQ(contents.tensors[0].spec.name, "t_float32");
  EXPECT_EQ(contents.tensors[0].spec.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(contents.tensors[1].spec.shape.empty());
}

TEST(mindspore_checkpoint, writes_the_bytes_of_mindspore) {
  const auto source = open_mindspore_source(golden("mindspore_crc.ckpt"));
  const TemporaryFolder place;
  write_mindspore(place / "out.ckpt", source->tensors(),
                  [&](const TensorSpec& spec, const ByteSink& sink) {
                    stream(*source, source->at(spec.name), sink);
                  },
                  {.crc = true});
  EXPECT_EQ(slurp(place / "out.ckpt"), slurp(golden("mindspore_crc.ckpt")));
}

TEST(mindspore_checkpoint, gone_on_with_anywhere_is_the_same_file) {
  const TemporaryFolder place;
  const std::vector<TensorSpec> specs{{"a", Dtype::kF32, {5, 10}}, {"b", Dtype::kU8, {100}}};
  std::string content(200, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7);
  for (const bool crc : {false, true}) {
    int produced = 0;
    const auto write = [&](FileGrowth growth) {
      produced = 0;
      write_mindspore(
          place / "out.ckpt", specs,
          [&](const TensorSpec& spec, const ByteSink& sink) {
            if (!sink) return;
            ++produced;
            sink(as_bytes(content).first(spec.num_bytes()));
          },
          {.crc = crc, .max_piece_bytes = 64}, FileRole::kCheckpoint, std::move(growth));
    };
    write({});
    const std::string whole = slurp(place / "out.ckpt");
    for (size_t found = whole.size() % 19; found <= whole.size(); found += 19) {
      std::ofstream(place / "out.ckpt", std::ios::binary) << whole.substr(0, found) << "torn";
      write({.found = found, .on_disk = [](uint64_t) {}});
      ASSERT_EQ(slurp(place / "out.ckpt"), whole) << found;
    }
    EXPECT_EQ(produced, crc ? 2 : 0);
  }
}

TEST(mindspore_checkpoint, large_tensors_are_cut_into_pieces_and_joined) {
  const TemporaryFolder place;
  std::string content(1000, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7);
  const std::vector<TensorSpec> specs{{"a", Dtype::kF32, {25, 10}}, {"b", Dtype::kU8, {1000}}};
  write_mindspore(place / "out.ckpt", specs,
                  [&](const TensorSpec&, const ByteSink& sink) {
                    sink(as_bytes(content).first(333));
                    sink(as_bytes(content).subspan(333));
                  },
                  {.max_piece_bytes = 128});
  const auto contents = parse(slurp(place / "out.ckpt"));
  EXPECT_EQ(contents.tensors[0].pieces.size(), 8u);
  EXPECT_EQ(contents.tensors[0].pieces[7].size(), 1000u - 7 * 128);
  const auto source = open_mindspore_source(place / "out.ckpt");
  EXPECT_FALSE(source->view(source->at("a")));
  EXPECT_EQ(bytes_in(*source, source->at("a")), content);
  for (int64_t first = 0; first < 25; ++first) {
    std::string rows(40 * static_cast<size_t>(std::min<int64_t>(4, 25 - first)), '\0');
    source->read_rows(source->at("a"), first, std::min<int64_t>(4, 25 - first),
                      std::as_writable_bytes(std::span(rows)));
    ASSERT_EQ(rows, content.substr(static_cast<size_t>(first) * 40, rows.size()));
  }
}

TEST(mindspore_checkpoint, scalars_may_have_the_dimension_zero) {
  const auto contents = parse(value("s", tensor(std::string("\x08\0", 2), "Float32", "abcd")));
  EXPECT_TRUE(contents.tensors[0].spec.shape.empty());
  // Packed dimensions, as newer protocol-buffer writers have them.
  const auto packed = parse(value("s", tensor(part(1, "\1\2"), "UInt8", "ab")));
  EXPECT_EQ(packed.tensors[0].spec.shape, (std::vector<int64_t>{1, 2}));
}

TEST(mindspore_checkpoint, hostile_files_are_refused_with_the_reason) {
  const std::string good = value("t", tensor("\x08\1", "UInt8", "a"));
  const std::string other = value("u", tensor("\x08\1", "UInt8", "a"));
  std::string with_crc = good + "crc_num" + std::string(10, '\0');
  const std::string large(9, '\xff');
  const std::pair<std::string, std::string_view> attacks[] = {
      {good.substr(0, good.size() - 1), "truncated"},
      {"\x0a", "truncated"},
      {"\x0a" + large, "truncated"},
      {"\x0a" + large + "\1", "truncated"},
      {"\x0a" + large + large, "more than ten bytes"},
      {"\x0b", "wire type 3"},
      {part(1, part(1, "t")), "holds no tensor"},
      {value("t", tensor("\x08\1", "Float9", "a")), "unknown type 'Float9'"},
      {value("t", tensor("\x08\1", "Complex128", std::string(16, 'a'))), "unknown type"},
      {value("t", tensor("\x08\2", "UInt8", "a")), "has 2 bytes, got 1"},
      {value("t", tensor("", "UInt8", "ab")), "has 1 bytes, got 2"},
      {value("t", tensor("\x08" + large + "\1", "UInt8", "a")), "negative dimension"},
      {value("t", tensor("\x08" + large.substr(1) + "\x7f\x08" + large.substr(1) + "\x7f", "UInt8",
                         "a")),
       "overflows"},
      {good + value("t", tensor("\x08\2", "UInt8", "a")), "differ in type or dimensions"},
      {good + other + good, "'t': stands in two places"},
      {with_crc, "expected the CRC-32 00000000"},
      {value("n", tensor(std::string("\x08\0", 2), "str", "abc")), "expected text in UTF-32"},
      {value("n", tensor(std::string("\x08\0", 2), "str", "\xff\xff\xff\xff")), "UTF-32"},
      {"\xd8\x5e\x3a\x7f" + large, "encrypted"},
  };
  for (const auto& [bytes, reason] : attacks) {
    expect_error(kCode, reason, [&bytes = bytes] { parse(bytes); });
  }
  EXPECT_EQ(parse(good + other).tensors.size(), 2u);
  EXPECT_TRUE(parse("").tensors.empty());
  EXPECT_EQ(parse(part(1, part(1, "m") + part(3, ""))).hash_tables.size(), 1u);
}

TEST(mindspore_checkpoint, what_cannot_be_written_is_said_so) {
  const TemporaryFolder place;
  const auto write = [&](const std::vector<TensorSpec>& specs, std::string_view content) {
    write_mindspore(place / "out.ckpt", specs,
                    [&](const TensorSpec&, const ByteSink& sink) { sink(as_bytes(content)); });
  };
  expect_error(kCode, "have no type F8_E4M3", [&] { write({{"t", Dtype::kF8E4M3, {1}}}, "a"); });
  expect_error(kCode, "needs a name", [&] { write({{"", Dtype::kU8, {1}}}, "a"); });
  expect_error(kCode, "two places", [&] {
    write({{"t", Dtype::kU8, {1}}, {"t", Dtype::kU8, {1}}}, "a");
  });
  EXPECT_THROW(write({{"t", Dtype::kU8, {1}}}, "ab"), std::logic_error);
  EXPECT_THROW(write({{"t", Dtype::kU8, {2}}}, "a"), std::logic_error);
  EXPECT_TRUE(fs::is_empty(place.path()));
  write({{"t", Dtype::kU8, {0, 4}}}, "");
  EXPECT_EQ(slurp(place / "out.ckpt"), "");
}

}  // namespace
}  // namespace qianli::formats
