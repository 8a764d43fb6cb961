#include "qianli/formats/npy.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "tests/formats/bytes.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::source_path;
using testing::TemporaryFolder;
constexpr auto kCode = ExitCode::kData;

std::string npy(const std::string& header, const std::string& data, int version = 1) {
  std::string bytes = std::string("\x93NUMPY") + static_cast<char>(version) + '\0';
  bytes += version == 1 ? bytes_of(static_cast<uint16_t>(header.size()))
                        : bytes_of(static_cast<uint32_t>(header.size()));
  return bytes + header + data;
}

NpyArray parse(const std::string& bytes) {
  return parse_npy(as_bytes(bytes), "x.npy", FileRole::kData);
}

TEST(npy, reads_what_numpy_writes) {
  const auto rows = NpyFile::open(source_path("tests/golden/formats/rows.npy"));
  EXPECT_EQ(rows.array().descr(), "<i4");
  EXPECT_EQ(rows.array().shape, (std::vector<int64_t>{4, 2}));
  EXPECT_EQ(rows.array().values<int32_t>().to_vector(),
            (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  const auto line = NpyFile::open(source_path("tests/golden/formats/line.npy"));
  EXPECT_EQ(line.array().shape, (std::vector<int64_t>{5}));
  EXPECT_EQ(line.array().values<uint32_t>()[3], 3000000000u);
  const auto second = NpyFile::open(source_path("tests/golden/formats/version2.npy"));
  EXPECT_EQ(second.array().values<int64_t>().to_vector(),
            (std::vector<int64_t>{-1, int64_t{1} << 40}));
}

TEST(npy, writes_what_numpy_writes) {
  TemporaryFolder folder;
  const std::vector<int32_t> rows{0, 1, 2, 3, 4, 5, 6, 7};
  write_npy<int32_t>(folder / "rows.npy", rows, 2);
  EXPECT_EQ(slurp(folder / "rows.npy"), slurp(source_path("tests/golden/formats/rows.npy")));
  const std::vector<uint32_t> line{0, 1000000000, 2000000000, 3000000000, 4000000000};
  write_npy<uint32_t>(folder / "line.npy", line);
  EXPECT_EQ(slurp(folder / "line.npy"), slurp(source_path("tests/golden/formats/line.npy")));
  EXPECT_THROW(write_npy<int32_t>(folder / "bad.npy", rows, 3), std::logic_error);
}

TEST(npy, every_whole_number_type_round_trips) {
  TemporaryFolder folder;
  const auto round_trip = [&](auto lowest, auto highest) {
    using T = decltype(lowest);
    const std::vector<T> values{lowest, highest};
    write_npy<T>(folder / "x.npy", values);
    const auto file = NpyFile::open(folder / "x.npy");
    EXPECT_EQ(file.array().template values<T>().to_vector(), values) << file.array().descr();
    EXPECT_EQ(file.array().num_elements(), 2);
  };
  round_trip(int8_t{-128}, int8_t{127});
  round_trip(uint8_t{0}, uint8_t{255});
  round_trip(int16_t{-32768}, int16_t{32767});
  round_trip(uint16_t{0}, uint16_t{65535});
  round_trip(INT32_MIN, INT32_MAX);
  round_trip(uint32_t{0}, UINT32_MAX);
  round_trip(INT64_MIN, INT64_MAX);
  round_trip(uint64_t{0}, UINT64_MAX);
}

TEST(npy, empty_arrays_round_trip) {
  TemporaryFolder folder;
  write_npy<int64_t>(folder / "x.npy", {});
  EXPECT_EQ(NpyFile::open(folder / "x.npy").array().shape, (std::vector<int64_t>{0}));
  write_npy<int64_t>(folder / "x.npy", {}, 2);
  EXPECT_EQ(NpyFile::open(folder / "x.npy").array().shape, (std::vector<int64_t>{0, 2}));
}

TEST(npy, headers_may_be_spelled_differently) {
  for (const std::string& header :
       {std::string("{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }   \n"),
        std::string("{\"shape\":(2 , ),\"descr\":\"<i2\",\"fortran_order\":True}"),
        std::string("{'fortran_order': False, 'shape': (2, 1), 'descr': '<i2'}\n")}) {
    for (const int version : {1, 2, 3}) {
      EXPECT_EQ(parse(npy(header, "abcd", version)).values<int16_t>()[0], 0x6261) << header;
    }
  }
}

TEST(npy, other_types_than_stored_are_refused) {
  const auto file = NpyFile::open(source_path("tests/golden/formats/rows.npy"));
  expect_error(kCode, "expected elements '<u4', got '<i4'",
               [&] { (void)file.array().values<uint32_t>(); });
}

TEST(npy, damaged_files_are_refused_with_the_reason) {
  const auto refused = [](std::string_view reason, const std::string& descr,
                          const std::string& order, const std::string& shape,
                          const std::string& rest = "}") {
    const auto bytes =
        npy("{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + rest,
            "abcd");
    expect_error(kCode, reason, [&] { parse(bytes); });
    expect_error(kCode, "x.npy", [&] { parse(bytes); });
  };
  refused("descr '<f4'", "'<f4'", "False", "(1,)");
  refused("descr '>i4'", "'>i4'", "False", "(1,)");
  refused("descr '|O'", "'|O'", "False", "(1,)");
  refused("in quotes", "[('a','<i4')]", "False", "(1,)");
  refused("True or False", "'<i4'", "Maybe", "(1,)");
  refused("got columns", "'<i2'", "True", "(2,1)");
  refused("got none", "'<i4'", "False", "()");
  refused("got more", "'<i1'", "False", "(1,2,2)");
  refused("whole numbers in the shape", "'<i4'", "False", "(-1,)");
  refused("whole numbers in the shape", "'<i4'", "False", "(99999999999999999999,)");
  refused("whole numbers in the shape", "'<i4'", "False", "(x,)");
  refused("overflows", "'<i4'", "False", "(4294967296,4294967296)");
  refused("overflows", "'<i4'", "False", "(9223372036854775807,)");
  refused("needs 8 bytes of data, got 4", "'<i4'", "False", "(2,)");
  refused("needs 0 bytes of data, got 4", "'<i4'", "False", "(0,)");
  refused("duplicate key", "'<i4'", "False", "(1,)", ",'shape':(1,)}");
  refused("unknown key 'more'", "'<i4'", "False", "(1,)", ",'more':1}");
  refused("expected '}'", "'<i4'", "False", "(1,)", "");
  refused("after the header", "'<i4'", "False", "(1,)", "} x");
  expect_error(kCode, "expected descr, fortran_order and shape",
               [] { parse(npy("{'descr':'<i4'}", "")); });
  expect_error(kCode, "\\x93NUMPY", [] { parse("\x92NUMPY" + std::string(20, '\0')); });
  expect_error(kCode, "got 4.0", [] { parse(npy("{}", "", 4)); });
}

TEST(npy, truncation_at_every_byte_is_refused) {
  for (const char* name : {"rows.npy", "version2.npy"}) {
    const std::string whole = slurp(source_path("tests/golden/formats") / name);
    for (size_t size = 0; size < whole.size(); ++size) {
      expect_error(kCode, "x.npy", [&] { parse(whole.substr(0, size)); });
    }
    expect_error(kCode, "bytes of data", [&] { parse(whole + "x"); });
  }
}

}  // namespace
}  // namespace qianli::formats
