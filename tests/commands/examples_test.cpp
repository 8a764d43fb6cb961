// Every script of examples/ runs from start to end.
#include <algorithm>

#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

TEST(SlowExamplesTest, EveryScriptRuns) {
  QIANLI_REQUIRE_ENGINE();
  std::vector<fs::path> scripts;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(source_path("examples"), error)) {
    if (entry.path().extension() == ".sh") scripts.push_back(entry.path());
  }
  if (scripts.empty()) GTEST_SKIP() << "examples/ holds no scripts";
  std::ranges::sort(scripts);
  for (const auto& script : scripts) {
    SCOPED_TRACE(script.string());
    const TemporaryFolder folder;
    RunOptions options{.folder = folder.path()};
    // Scripts find the program by its name.
    options.environment["PATH"] = program_path().parent_path().string() + ":" + std::getenv("PATH");
    options.timeout = std::chrono::seconds(600);
    options.program = "/bin/bash";
    const Result result = run({script.string()}, options);
    EXPECT_EQ(result.code, 0) << result.out << result.err;
  }
}

}  // namespace
}  // namespace qianli::testing
