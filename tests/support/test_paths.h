// Where tests find things.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace qianli::testing {

// A file of the source tree: source_path("tests/golden/...").
std::filesystem::path source_path(const std::string& relative);
// A file of the shared data folder (QIANLI_SHARED_DATA, or ../shared/data beside the project), if
// it is there.
std::optional<std::filesystem::path> shared_data(const std::string& relative);
// A fresh empty folder, removed when the object goes.
class TemporaryFolder {
 public:
  TemporaryFolder() : TemporaryFolder(std::filesystem::temp_directory_path()) {}
  explicit TemporaryFolder(const std::filesystem::path& parent);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace qianli::testing

// Skips a test, saying what is missing, where the shared data folder is absent.
#define QIANLI_REQUIRE_DATA(variable, relative)                                     \
  const auto variable##_found = ::qianli::testing::shared_data(relative);           \
  if (!variable##_found) GTEST_SKIP() << "shared data not present: " << (relative); \
  const std::filesystem::path variable = *variable##_found
