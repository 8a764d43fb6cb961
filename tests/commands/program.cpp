#include "tests/commands/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

namespace qianli::testing {
namespace {

using Clock = std::chrono::steady_clock;

std::string text_of(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void redirect(int stream, const fs::path& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (file < 0 || ::dup2(file, stream) < 0) ::_exit(127);
  ::close(file);
}

// In the child: everything up to the start of the program.
[[noreturn]] void become(char* const* arguments, const RunOptions& options,
                         const fs::path& captured) {
  if (::chdir(options.folder.c_str()) != 0) ::_exit(127);
  const int nothing = ::open("/dev/null", O_RDONLY);
  if (nothing < 0 || ::dup2(nothing, STDIN_FILENO) < 0) ::_exit(127);
  ::close(nothing);
  redirect(STDOUT_FILENO,
           options.standard_output.empty() ? captured / "out" : options.standard_output);
  redirect(STDERR_FILENO, captured / "err");
  for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 1);
  // One thread where the test asks for nothing else: many tests of small models share few cores.
  ::setenv("QIANLI_THREADS", "1", /*overwrite=*/0);
  for (const int stream : options.closed_streams) ::close(stream);
  ::execv(arguments[0], arguments);
  ::_exit(127);
}

}  // namespace

fs::path program_path() {
  const char* given = std::getenv("QIANLI_PROGRAM");
  return fs::absolute(given ? given : QIANLI_BUILT_PROGRAM);
}

bool engine_present() {
#ifdef QIANLI_HAS_ENGINE
  return true;
#else
  return fs::exists(program_path().parent_path() / "libqianli_engine.so");
#endif
}

Program::Program(std::vector<std::string> arguments, const RunOptions& options)
    : deadline_(Clock::now() + options.timeout) {
  std::string name = (fs::temp_directory_path() / "qianli-program-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed for " + name);
  captured_ = name;
  arguments.insert(arguments.begin(), options.program.string());
  std::vector<char*> words;
  for (auto& argument : arguments) words.push_back(argument.data());
  words.push_back(nullptr);
  process_ = ::fork();
  if (process_ < 0) throw std::runtime_error("fork failed");
  if (process_ == 0) become(words.data(), options, captured_);
}

Program::~Program() {
  if (!reaped_) {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, &status_, 0);
  }
  std::error_code ignored;
  fs::remove_all(captured_, ignored);
}

void Program::send(int signal) const {
  if (!reaped_) ::kill(process_, signal);
}

bool Program::ended() {
  if (!reaped_) reaped_ = ::waitpid(process_, &status_, WNOHANG) == process_;
  return reaped_;
}

bool Program::wait_for(const std::function<bool()>& condition) {
  while (!condition()) {
    if (ended() || Clock::now() > deadline_) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

Result Program::finish() {
  Result result;
  wait_for([this] { return ended(); });
  if (!ended()) {
    result.timed_out = true;
    ::kill(process_, SIGKILL);
    ::waitpid(process_, &status_, 0);
    reaped_ = true;
  }
  result.code = WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_);
  result.out = text_of(captured_ / "out");
  result.err = text_of(captured_ / "err");
  return result;
}

Result run(std::vector<std::string> arguments, const RunOptions& options) {
  return Program(std::move(arguments), options).finish();
}

}  // namespace qianli::testing
