#include "qianli/formats/zip.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "tests/formats/bytes.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::TemporaryFolder;
constexpr auto kCode = ExitCode::kCheckpoint;

std::vector<ZipEntry> parse(const std::string& bytes) {
  return parse_zip(as_bytes(bytes), "x.zip", FileRole::kCheckpoint);
}

std::string two_entries() {
  const TemporaryFolder place;
  ZipWriter writer(place / "a.zip", FileRole::kCheckpoint);
  writer.add("one", "first");
  writer.add("two", "second");
  writer.commit();
  return slurp(place / "a.zip");
}

template <class T>
std::string changed(std::string bytes, size_t place, T value) {
  bytes.replace(place, sizeof value, bytes_of(value));
  return bytes;
}

struct Places {
  size_t local, second_local, central, second_central, end;
};
Places places(const std::string& bytes) {
  const auto nth = [&](std::string_view signature, int n) {
    size_t place = bytes.find(signature);
    for (; n > 0; --n) place = bytes.find(signature, place + 1);
    return place;
  };
  return {nth("PK\3\4", 0), nth("PK\3\4", 1), nth("PK\1\2", 0), nth("PK\1\2", 1), nth("PK\5\6", 0)};
}

TEST(zip, entries_are_spans_of_the_archive) {
  const std::string bytes = two_entries();
  const auto entries = parse(bytes);
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].name, "one");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(entries[1].bytes.data()), 6), "second");
  EXPECT_GE(reinterpret_cast<const char*>(entries[1].bytes.data()), bytes.data());
  EXPECT_EQ(entries[0].bytes.data() - as_bytes(bytes).data(), 64);
  check_crc(entries[0], "x.zip", FileRole::kCheckpoint);
  ZipEntry wrong = entries[0];
  wrong.crc32 ^= 1;
  expect_error(kCode, "CRC-32", [&] { check_crc(wrong, "x.zip", FileRole::kCheckpoint); });
  EXPECT_EQ(parse(bytes + std::string("")).size(), 2u);
}

TEST(zip, hostile_archives_are_refused_with_the_reason) {
  const std::string good = two_entries();
  const Places at = places(good);
  const std::pair<std::string, std::string_view> attacks[] = {
      {"", "no directory at its end"},
      {std::string(100000, 'P'), "no directory at its end"},
      {good.substr(0, good.size() - 1), "no directory at its end"},
      {good + "x", "no directory at its end"},
      {changed<uint16_t>(good, at.end + 4, 1), "split"},
      {changed<uint16_t>(good, at.end + 10, 0x7fff), "entries do not fit"},
      {changed<uint16_t>(good, at.end + 10, 3), "entries do not fit"},
      {changed<uint32_t>(good, at.end + 12, 0xfffffff0), "leaves the archive"},
      {changed<uint32_t>(good, at.end + 16, 0xfffffff0), "leaves the archive"},
      {changed<uint32_t>(good, at.central, 0), "damaged directory"},
      {changed<uint16_t>(good, at.central + 28, 0xffff), "damaged directory"},
      {changed<uint16_t>(good, at.central + 8, 1), "encrypted"},
      // A deflated entry, and one that claims to grow when read: a zip bomb.
      {changed<uint16_t>(good, at.central + 10, 8), "compression method 8"},
      {changed<uint32_t>(good, at.central + 24, 0x7fffffff), "compression method 0"},
      {changed<uint32_t>(changed<uint32_t>(good, at.central + 24, 0x7fffffff), at.central + 20,
                         0x7fffffff),
       "leave the archive"},
      {changed<uint32_t>(good, at.central + 24, 0xffffffff), "compression method 0"},
      {changed<uint32_t>(good, at.central + 42, 0x7fffffff), "no header"},
      {changed<uint32_t>(good, at.second_central + 42, 0), "its header has another name"},
      {changed<uint8_t>(good, at.central + 46, 'x'), "its header has another name"},
      // The first entry reaches into the second.
      {changed<uint32_t>(changed<uint32_t>(good, at.central + 24, 60), at.central + 20, 60),
       "overlaps 'one'"},
  };
  for (const auto& [bytes, reason] : attacks) {
    expect_error(kCode, reason, [&bytes = bytes] { parse(bytes); });
  }
}

TEST(zip, one_name_twice_is_refused) {
  const TemporaryFolder place;
  ZipWriter writer(place / "a.zip", FileRole::kCheckpoint);
  writer.add("one", "first");
  writer.add("one", "second");
  writer.commit();
  expect_error(kCode, "a second entry of this name", [&] { parse(slurp(place / "a.zip")); });
}

TEST(zip, many_entries_need_zip64) {
  const TemporaryFolder place;
  ZipWriter writer(place / "a.zip", FileRole::kCheckpoint);
  constexpr int kEntries = 70000;
  for (int i = 0; i < kEntries; ++i) writer.add(std::to_string(i), "");
  writer.commit();
  const std::string bytes = slurp(place / "a.zip");
  EXPECT_EQ(parse(bytes).size(), size_t{kEntries});
  const size_t end64 = bytes.rfind("PK\6\6");
  expect_error(kCode, "do not fit", [&] { parse(changed<uint64_t>(bytes, end64 + 32, 1 << 30)); });
  expect_error(kCode, "leaves the archive", [&] {
    const size_t end = bytes.rfind("PK\5\6");
    parse(
        changed<uint64_t>(changed<uint32_t>(bytes, end + 12, 0xffffffff), end64 + 40, UINT64_MAX));
  });
  expect_error(kCode, "two directories disagree",
               [&] { parse(changed<uint64_t>(bytes, end64 + 40, 1)); });
  expect_error(kCode, "damaged zip64",
               [&] { parse(changed<uint64_t>(bytes, bytes.rfind("PK\6\7") + 8, UINT64_MAX)); });
}

TEST(zip, wrong_use_of_the_writer_is_a_logic_error) {
  const TemporaryFolder place;
  ZipWriter writer(place / "a.zip", FileRole::kCheckpoint);
  writer.begin("one", 2);
  EXPECT_THROW(writer.write(as_bytes("abc")), std::logic_error);
  writer.write(as_bytes("a"));
  EXPECT_THROW(writer.commit(), std::logic_error);
}

}  // namespace
}  // namespace qianli::formats
