#include "qianli/launch/child.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <system_error>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::launch {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

struct Pipe {
  Descriptor reader, writer;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) fail("cannot make a pipe");
    reader = Descriptor(ends[0]);
    writer = Descriptor(ends[1]);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  }
};

// glibc 2.36 declares pidfd_open without C linkage.
int open_handle(pid_t process) { return static_cast<int>(::syscall(SYS_pidfd_open, process, 0)); }

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> list;
  for (auto& word : words) list.push_back(word.data());
  list.push_back(nullptr);
  return list;
}

void default_signals() {
  for (int signal = 1; signal < NSIG; ++signal)
    if (signal != SIGHUP) ::signal(signal, SIG_DFL);  // nohup stays nohup
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

struct Start {
  const char* program;
  char* const* arguments;
  char* const* environment;
  const cpu_set_t* cores;
  pid_t parent;
  int output, error;
};

// In the child, between fork and exec: no allocation.
[[noreturn]] void become(const Start& start) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != start.parent) ::_exit(127);  // it died before the line above
  default_signals();
  if (start.cores != nullptr) ::sched_setaffinity(0, sizeof *start.cores, start.cores);
  const int nothing = ::open("/dev/null", O_RDONLY);
  if (::dup2(start.error, STDERR_FILENO) < 0 || ::dup2(start.output, STDOUT_FILENO) < 0 ||
      nothing < 0 || ::dup2(nothing, STDIN_FILENO) < 0)
    ::_exit(127);
  if (nothing > STDERR_FILENO) ::close(nothing);
  ::execve(start.program, start.arguments, start.environment);
  ::dprintf(STDERR_FILENO, "cannot start %s: %s\n", start.program, ::strerror(errno));
  ::_exit(errno == ENOENT ? 127 : 126);
}

}  // namespace

Child start_child(const fs::path& program, const std::vector<std::string>& arguments,
                  const Environment& environment, const std::optional<cpu_set_t>& cores) {
  std::vector<std::string> words = arguments, settings;
  for (const auto& [name, value] : environment) settings.push_back(name + "=" + value);
  const auto argv = pointers(words), envp = pointers(settings);
  Pipe output, error;
  const Start start{.program = program.c_str(),
                    .arguments = argv.data(),
                    .environment = envp.data(),
                    .cores = cores ? &*cores : nullptr,
                    .parent = ::getpid(),
                    .output = output.writer.get(),
                    .error = error.writer.get()};
  Child child;
  child.process = ::fork();
  if (child.process < 0) fail("cannot start a process");
  if (child.process == 0) become(start);
  ::setpgid(child.process, child.process);  // whoever is first
  child.handle = Descriptor(open_handle(child.process));
  if (!child.handle) {
    const int reason = errno;
    ::kill(child.process, SIGKILL);
    errno = reason;
    fail("cannot watch a process");
  }
  child.output = std::move(output.reader);
  child.error = std::move(error.reader);
  return child;
}

fs::path find_program(const std::string& name) {
  const auto runs = [](const fs::path& path) {
    std::error_code ignored;
    return fs::is_regular_file(path, ignored) && ::access(path.c_str(), X_OK) == 0;
  };
  if (name.find('/') != std::string::npos) {
    if (runs(name)) return fs::absolute(name);
    throw ConfigError("launch", fmt::format("expected a program, got '{}': {}", name,
                                            fs::exists(name) ? "it cannot be executed"
                                                             : "there is no such file"));
  }
  const char* search = std::getenv("PATH");
  for (const std::string& folder : split(search ? search : "/usr/bin:/bin", ':')) {
    const fs::path path = fs::path(folder.empty() ? "." : folder) / name;
    if (runs(path)) return fs::absolute(path);
  }
  throw ConfigError("launch",
                    fmt::format("expected a command of qianli or a program, got '{}'", name),
                    "`qianli --help` lists the commands");
}

}  // namespace qianli::launch
