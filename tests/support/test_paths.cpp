#include "tests/support/test_paths.h"

#include <unistd.h>

#include <cstdlib>
#include <stdexcept>

namespace qianli::testing {

std::filesystem::path source_path(const std::string& relative) {
  return std::filesystem::path(QIANLI_SOURCE_DIR) / relative;
}

std::optional<std::filesystem::path> shared_data(const std::string& relative) {
  const char* place = std::getenv("QIANLI_SHARED_DATA");
  const std::filesystem::path root =
      place ? std::filesystem::path(place) : source_path("../shared/data");
  const auto path = root / relative;
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path;
}

TemporaryFolder::TemporaryFolder(const std::filesystem::path& parent) {
  std::string name = (parent / "qianli-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed for " + name);
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace qianli::testing
