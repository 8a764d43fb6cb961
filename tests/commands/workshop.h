// A folder in which a user works: text, tokenizer, corpus, a configuration for a tiny model.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "qianli/base/json.h"
#include "tests/commands/program.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {

std::string read_text(const fs::path& path);
void write_text(const fs::path& path, const std::string& text);
// Replaces bytes in the middle of a file.
void overwrite(const fs::path& path, uint64_t offset, const std::string& bytes);
// The lines of metrics.jsonl, of which the last one may still be half written.
std::vector<Json> read_metrics(const fs::path& run_folder);
// The fenced blocks of a language in a page of Markdown, in order.
std::vector<std::string> blocks_of(const std::string& page, const std::string& language);
int64_t last_step(const fs::path& run_folder);  // 0 where there is none

class Workshop : public ::testing::Test {
 protected:
  void SetUp() override;

  fs::path path(const std::string& name) const { return folder_ / name; }
  // Runs the program in the folder.
  Result qianli(std::vector<std::string> arguments) const;
  Result pretrain(std::vector<std::string> overrides) const;
  // Runs a script of bash there, which finds the program by its name.
  Result shell(const std::string& script) const;
  RunOptions options() const { return {.folder = folder_.path()}; }
  // 4 steps of tiny.yaml into `run`; gives its last checkpoint.
  fs::path trained(const std::string& run) const;

 private:
  TemporaryFolder folder_;
};

// Exit code, and words that the message on standard error must hold.
void expect_failure(const Result& result, int code, const std::vector<std::string>& words);
void expect_success(const Result& result);

}  // namespace qianli::testing
