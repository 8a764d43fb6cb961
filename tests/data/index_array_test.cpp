#include "qianli/data/index_array.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing::TemporaryFolder;

TEST(IndexArray, is_saved_as_numpy_does_and_read_back) {
  TemporaryFolder folder;
  const auto array = IndexArray::own(std::vector<int32_t>{1, -2, 3, 4, 5, 6, 7, 8}, 2);
  array.save_npy(folder / "a.npy");
  const std::string file = read_file(folder / "a.npy", FileRole::kData);
  ASSERT_EQ(file.size(), 128u + 32u);
  EXPECT_EQ(file.substr(0, 10), std::string("\x93NUMPY\x01\x00\x76\x00", 10));
  EXPECT_EQ(file.substr(10, 60), "{'descr': '<i4', 'fortran_order': False, 'shape': (4, 2), } ");
  EXPECT_EQ(file[127], '\n');
  const auto read = IndexArray::map_npy(folder / "a.npy");
  EXPECT_EQ(read.rows(), 4);
  EXPECT_EQ(read.columns(), 2);
  EXPECT_EQ(read[1], -2);
  EXPECT_EQ(read[7], 8);
}

TEST(IndexArray, every_element_type_survives) {
  TemporaryFolder folder;
  IndexArray::own(std::vector<uint32_t>{4294967295u}).save_npy(folder / "u4.npy");
  EXPECT_EQ(IndexArray::map_npy(folder / "u4.npy")[0], 4294967295);
  IndexArray::own(std::vector<int64_t>{-5}).save_npy(folder / "i8.npy");
  EXPECT_EQ(IndexArray::map_npy(folder / "i8.npy")[0], -5);
  IndexArray::own(std::vector<int16_t>{}).save_npy(folder / "i2.npy");
  EXPECT_EQ(IndexArray::map_npy(folder / "i2.npy").size(), 0);
}

TEST(IndexArray, other_types_are_refused) {
  TemporaryFolder folder;
  IndexArray::own(std::vector<int32_t>{1, 2, 3}).save_npy(folder / "a.npy");
  std::string bytes = read_file(folder / "a.npy", FileRole::kData);
  bytes.replace(bytes.find("(3,)"), 4, "(6,)").replace(bytes.find("<i4"), 3, "<u2");
  write_file_atomically(folder / "a.npy", bytes, FileRole::kData);
  EXPECT_THROW(IndexArray::map_npy(folder / "a.npy"), DataError);
}

}  // namespace
}  // namespace qianli::data
