#include "qianli/device/local_device.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"

namespace qianli::device {
namespace {

TEST(LocalDevice, is_that_of_the_local_rank) {
  EXPECT_EQ(local_device(4, {0, 4}), 0);
  EXPECT_EQ(local_device(4, {3, 4}), 3);
  EXPECT_EQ(local_device(8, {1, 2}), 1);
  EXPECT_EQ(local_device(8, {}), 0);
}

TEST(LocalDevice, that_alone_is_visible_was_dealt_out) { EXPECT_EQ(local_device(1, {3, 4}), 0); }

TEST(LocalDevice, that_another_rank_would_have_to_share_is_refused) {
  try {
    local_device(2, {1, 4});
    FAIL() << "two devices were enough for four ranks";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("each of the 4 ranks on this machine, got 2 devices"),
              std::string::npos)
        << error.what();
  }
}

// No test of ours runs where there is an NPU.
TEST(NpuLibrary, that_is_not_there_is_asked_for_in_vain) {
  if (NpuLibrary::get().devices() > 0) GTEST_SKIP() << "here is an NPU";
  try {
    choose("npu");
    FAIL() << "an NPU was found";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("expected an NPU, got none: "), std::string::npos);
    EXPECT_NE(std::string(error.what()).find(NpuLibrary::get().why()), std::string::npos);
  }
}

}  // namespace
}  // namespace qianli::device
