#include "qianli/base/output_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <stdexcept>
#include <vector>

#include "tests/support/test_paths.h"

namespace qianli {
namespace {

class OutputFiles : public ::testing::Test {
 protected:
  FileGrowth growth(uint64_t found, uint64_t step = 4) {
    return {.found = found, .step = step, .on_disk = [this](uint64_t bytes) {
              EXPECT_EQ(fs::file_size(path()), bytes);
              told_.push_back(bytes);
            }};
  }
  fs::path path() const { return place_ / "file"; }
  std::string content() const { return read_file(path(), FileRole::kData); }

  testing::TemporaryFolder place_;
  std::vector<uint64_t> told_;
};

TEST_F(OutputFiles, without_a_growth_appear_when_they_are_whole) {
  OutputFile file(path(), FileRole::kData);
  file.write("abc");
  EXPECT_FALSE(file.skip(1));
  file.write_at(1, "B", 1);
  EXPECT_FALSE(fs::exists(path()));
  file.commit();
  EXPECT_EQ(content(), "aBc");
}

TEST_F(OutputFiles, that_grow_tell_how_far_they_are_on_disk) {
  {
    OutputFile file(path(), FileRole::kData, growth(0));
    for (const char* text : {"a", "bc", "defgh", "i"}) file.write(text);
  }
  EXPECT_EQ(told_, (std::vector<uint64_t>{8}));
  EXPECT_EQ(content(), "abcdefgh");  // the rest was not on disk
  OutputFile file(path(), FileRole::kData, growth(8));
  EXPECT_TRUE(file.skip(3));
  EXPECT_FALSE(file.skip(6)) << "half of it is there";
  file.write("DEFGHi");  // what was found stays
  EXPECT_FALSE(file.skip(1));
  char found[2];
  file.read_found(1, found, 2);
  EXPECT_EQ(std::string(found, 2), "bc");
  file.write_at(0, "A", 1);
  file.commit();
  EXPECT_EQ(content(), "Abcdefghi");
  EXPECT_EQ(told_, (std::vector<uint64_t>{8, 9}));
}

TEST_F(OutputFiles, lose_what_lies_behind_the_place_that_was_told) {
  std::ofstream(path()) << "abcXYZ";
  OutputFile file(path(), FileRole::kData, growth(3));
  EXPECT_TRUE(file.skip(3));
  file.write("de");
  file.commit();
  EXPECT_EQ(content(), "abcde");
}

TEST_F(OutputFiles, that_are_whole_are_not_told_again) {
  std::ofstream(path()) << "abc";
  OutputFile file(path(), FileRole::kData, growth(3));
  EXPECT_TRUE(file.skip(3));
  file.commit();
  EXPECT_TRUE(told_.empty());
  OutputFile shorter(path(), FileRole::kData, growth(3));
  shorter.write("ab");
  EXPECT_THROW(shorter.commit(), std::logic_error);
}

}  // namespace
}  // namespace qianli
