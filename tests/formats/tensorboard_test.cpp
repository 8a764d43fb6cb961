#include "qianli/formats/tensorboard.h"

#include <gtest/gtest.h>

#include <limits>
#include <regex>

#include "qianli/formats/little_endian.h"
#include "tests/formats/bytes.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::TemporaryFolder;

// Cuts a file into payloads, checking both checksums of every record.
std::vector<std::string> payloads(const std::string& file) {
  std::vector<std::string> found;
  for (size_t place = 0; place < file.size();) {
    const auto bytes = as_bytes(file);
    const auto length = load<uint64_t>(&bytes[place]);
    EXPECT_EQ(load<uint32_t>(&bytes[place + 8]), masked_crc32c(file.substr(place, 8)));
    found.push_back(file.substr(place + 12, length));
    EXPECT_EQ(load<uint32_t>(&bytes[place + 12 + length]), masked_crc32c(found.back()));
    place += 16 + length;
  }
  return found;
}

TEST(tensorboard, checksum_has_the_published_check_value) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(masked_crc32c("123456789"), 0xC78AB0E5u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(tensorboard, records_are_those_of_the_reference) {
  EXPECT_EQ(event_record(event_file_version(1.0)),
            from_hex("1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a32"
                     "86bf577a"));
  EXPECT_EQ(event_record(event_scalar("loss", 1.5f, 5, 2.0)),
            from_hex("1a00000000000000129bd82d09000000000000004010052a0d0a0b0a046c6f737315"
                     "0000c03f838961ae"));
}

TEST(tensorboard, whole_file_is_that_of_the_reference) {
  const std::string file =
      event_record(event_file_version(1.0)) +
      event_record(event_scalar("lm loss", 10.25f, 0, 1.5)) +
      event_record(event_scalar("loss", 1.5f, 5, 2.0)) +
      event_record(
          event_scalar("learning-rate", std::numeric_limits<float>::quiet_NaN(), 3000000000, 3.0)) +
      event_record(event_text("config", "**bold** 千", 7, 4.0));
  EXPECT_EQ(
      file,
      slurp(testing::source_path("tests/golden/formats/events.out.tfevents.0000000001.golden")));
}

TEST(tensorboard, writer_makes_a_file_that_is_readable_at_once) {
  TemporaryFolder folder;
  EventWriter writer(folder / "runs/first");
  const std::string name = writer.path().filename().string();
  EXPECT_TRUE(
      std::regex_match(name, std::regex("events\\.out\\.tfevents\\.\\d{10}\\..+\\.\\d+\\.\\d+")))
      << name;
  EXPECT_EQ(payloads(slurp(writer.path())).size(), 1u);
  writer.add_scalar("loss", 2.0f, 1);
  writer.add_text("config", "text", 1);
  writer.flush();
  const auto found = payloads(slurp(writer.path()));
  ASSERT_EQ(found.size(), 3u);
  EXPECT_NE(found[0].find("brain.Event:2"), std::string::npos);
  EXPECT_NE(found[1].find("loss"), std::string::npos);
  EventWriter second(folder / "runs/first");
  EXPECT_NE(second.path(), writer.path());
}

TEST(tensorboard, destructor_writes_what_is_left) {
  TemporaryFolder folder;
  fs::path path;
  {
    EventWriter writer(folder.path());
    path = writer.path();
    writer.add_scalar("loss", 2.0f, 1);
  }
  EXPECT_EQ(payloads(slurp(path)).size(), 2u);
}

TEST(tensorboard, unwritable_folder_is_an_error_with_its_name) {
  TemporaryFolder folder;
  spill(folder / "file", "x");
  expect_error(ExitCode::kData, "file/events.out.tfevents.",
               [&] { EventWriter writer(folder / "file"); });
}

}  // namespace
}  // namespace qianli::formats
