// Errors for users. Each carries the exit code of the program (design: exit codes are a contract).
// Message form: "[component] expected X, got Y. Hint: Z."
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace qianli {

enum class ExitCode : int {
  kDone = 0,
  kUsage = 2,         // command line or configuration
  kData = 3,          // corpora, indexes, tokenizers
  kMemory = 4,        // out of memory
  kNonFinite = 5,     // NaN or infinity in loss or gradients
  kCheckpoint = 6,    // checkpoints and model weights
  kUnavailable = 69,  // another rank or machine of the job is lost, hangs, or does something else
  kStopped = 75,      // stopped on request, resumable
};

class Error : public std::runtime_error {
 public:
  // `problem` is one sentence without the final dot; `hint` may be empty.
  Error(ExitCode code, std::string_view component, std::string_view problem, std::string_view hint);
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

struct ConfigError : Error {
  ConfigError(std::string_view component, std::string_view problem, std::string_view hint = {})
      : Error(ExitCode::kUsage, component, problem, hint) {}
};
struct DataError : Error {
  DataError(std::string_view component, std::string_view problem, std::string_view hint = {})
      : Error(ExitCode::kData, component, problem, hint) {}
};
struct MemoryError : Error {
  MemoryError(std::string_view component, std::string_view problem, std::string_view hint = {})
      : Error(ExitCode::kMemory, component, problem, hint) {}
};
struct NonFiniteError : Error {
  NonFiniteError(std::string_view component, std::string_view problem, std::string_view hint = {})
      : Error(ExitCode::kNonFinite, component, problem, hint) {}
};
struct CheckpointError : Error {
  CheckpointError(std::string_view component, std::string_view problem, std::string_view hint = {})
      : Error(ExitCode::kCheckpoint, component, problem, hint) {}
};
struct UnavailableError : Error {
  UnavailableError(std::string_view component, std::string_view problem, std::string_view hint = {})
      : Error(ExitCode::kUnavailable, component, problem, hint) {}
};
// Stopped on request (signal): everything is saved, the same command goes on.
struct StoppedError : Error {
  StoppedError(std::string_view component, std::string_view problem, std::string_view hint = {})
      : Error(ExitCode::kStopped, component, problem, hint) {}
};

}  // namespace qianli
