#include "qianli/formats/columnar.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/own_folder.h"
#include "qianli/base/random.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::TemporaryFolder;

std::vector<std::string> lines_of(const fs::path& path, std::optional<int64_t> most_rows = {}) {
  std::string text;
  read_columnar(path, most_rows, [&](std::string_view lines) {
    EXPECT_TRUE(lines.ends_with('\n'));
    text += lines;
    return true;
  });
  std::vector<std::string> lines;
  for (size_t begin = 0, end; begin < text.size(); begin = end + 1) {
    end = text.find('\n', begin);
    lines.push_back(text.substr(begin, end - begin));
  }
  return lines;
}

class Columnar : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(own_folder() / "libqianli_arrow.so"))
      GTEST_SKIP() << "this build has no Apache Arrow (QIANLI_ARROW_DIR)";
  }
  const fs::path golden = testing::source_path("tests/golden/columnar");
};

TEST_F(Columnar, rows_are_those_that_python_sees) {
  const std::string text = read_file(golden / "rows.jsonl", FileRole::kData);
  for (const char* name : {"rows.parquet", "stream.arrow", "file.arrow"}) {
    const std::vector<std::string> lines = lines_of(golden / name);
    ASSERT_EQ(lines.size(), 40u) << name;
    size_t begin = 0;
    for (const std::string& line : lines) {
      const size_t end = text.find('\n', begin);
      EXPECT_EQ(Json::parse(line), Json::parse(text.substr(begin, end - begin))) << name;
      begin = end + 1;
    }
  }
}

TEST_F(Columnar, the_first_rows_come_alone) {
  for (const char* name : {"rows.parquet", "stream.arrow", "file.arrow"}) {
    const auto all = lines_of(golden / name);
    const auto some = lines_of(golden / name, 19);
    EXPECT_EQ(some, std::vector<std::string>(all.begin(), all.begin() + 19)) << name;
  }
}

TEST_F(Columnar, what_the_reader_throws_comes_back) {
  EXPECT_THROW(read_columnar(golden / "rows.parquet", {},
                             [](std::string_view) -> bool { throw StoppedError("data", "stop"); }),
               StoppedError);
}

// Whatever the bytes: rows, or an error that names the file.
TEST_F(Columnar, damaged_files_are_refused_or_read) {
  TemporaryFolder folder;
  int refused = 0, trials = 0;
  const auto attempt = [&](const fs::path& path) {
    ++trials;
    try {
      lines_of(path);
    } catch (const DataError& error) {
      ++refused;
      EXPECT_NE(std::string(error.what()).find(path.filename().string()), std::string::npos);
    }
  };
  for (const char* name : {"rows.parquet", "stream.arrow", "file.arrow"}) {
    const std::string bytes = read_file(golden / name, FileRole::kData);
    for (size_t trial = 0; trial < 60; ++trial) {
      std::string damaged = bytes;
      const auto drawn = philox4x32(trial, 0, 0);
      for (size_t k = 0; k < 1 + trial % 3; ++k)
        damaged[drawn[k] % bytes.size()] ^= static_cast<char>(1 + drawn[k + 1] % 255);
      if (trial % 3 == 0) damaged.resize(drawn[3] % bytes.size());
      write_file_atomically(folder / name, damaged, FileRole::kData);
      attempt(folder / name);
    }
  }
  EXPECT_GT(refused, trials / 3);
}

TEST_F(Columnar, other_files_are_named) {
  TemporaryFolder folder;
  write_file_atomically(folder / "a.parquet", "PAR1 no", FileRole::kData);
  EXPECT_THROW(lines_of(folder / "a.parquet"), DataError);
  EXPECT_THROW(lines_of(folder / "absent.parquet"), DataError);
  EXPECT_THROW(lines_of(folder / "absent.arrow"), DataError);
}

}  // namespace
}  // namespace qianli::formats
