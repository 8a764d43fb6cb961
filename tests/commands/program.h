// Starts the program as a user does, and sees what it says and how it ends.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace qianli::testing {

namespace fs = std::filesystem;

// QIANLI_PROGRAM, or the one that was built.
fs::path program_path();
// Whether the commands that compute can work: the engine lies beside the program.
bool engine_present();

struct Result {
  int code = -1;           // exit code, or 128 + the signal that ended the program
  bool timed_out = false;  // it was killed for that
  std::string out;
  std::string err;
};

struct RunOptions {
  fs::path folder;                                 // the program's working directory
  std::map<std::string, std::string> environment;  // in addition to the test's own
  std::chrono::seconds timeout{120};
  fs::path standard_output;  // where it goes instead of Result::out
  fs::path program = program_path();
  std::vector<int> closed_streams;  // closed before the program starts
};

// A running program. Its output goes to files, so it never waits for a reader.
class Program {
 public:
  Program(std::vector<std::string> arguments, const RunOptions& options);
  ~Program();  // kills what still runs
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void send(int signal) const;
  // Looks every millisecond until the condition holds (true), or the program has ended or the time
  // is over (false).
  bool wait_for(const std::function<bool()>& condition);
  Result finish();

 private:
  bool ended();
  fs::path captured_;  // folder of the two files
  std::chrono::steady_clock::time_point deadline_;
  pid_t process_ = -1;
  int status_ = 0;
  bool reaped_ = false;
};

Result run(std::vector<std::string> arguments, const RunOptions& options);

}  // namespace qianli::testing

#define QIANLI_REQUIRE_ENGINE()                                             \
  if (!::qianli::testing::engine_present()) {                               \
    GTEST_SKIP() << "this build has no engine (QIANLI_TORCH_DIR is empty)"; \
  }
