#include "tests/checkpoint/killed_process.h"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>

namespace qianli::testing {
namespace {

bool changes_disk(uint64_t number) {
  switch (number) {
#ifdef SYS_mkdir
    case SYS_mkdir:
    case SYS_rename:
    case SYS_unlink:
    case SYS_rmdir:
    case SYS_open:
#endif
    case SYS_write:
    case SYS_writev:
    case SYS_pwrite64:
    case SYS_fsync:
    case SYS_fdatasync:
    case SYS_ftruncate:
    case SYS_openat:
    case SYS_mkdirat:
    case SYS_unlinkat:
#ifdef SYS_renameat
    case SYS_renameat:
#endif
    case SYS_renameat2:
      return true;
    default:
      return false;
  }
}

// Threads of LibTorch do not survive a fork: the child must not wait for any.
[[noreturn]] void run_child(const std::function<void()>& action) {
  at::set_num_threads(1);
  try {
    action();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "in the child: %s\n", error.what());
    ::_exit(1);
  }
  ::_exit(0);
}

// True where the thread stands at the entry of a call that changes the disk.
bool enters_disk_call(pid_t thread) {
  __ptrace_syscall_info info{};
  const long got =
      ::ptrace(PTRACE_GET_SYSCALL_INFO, thread, reinterpret_cast<void*>(sizeof info), &info);
  return got > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY && changes_disk(info.entry.nr);
}

// Until the process is gone; its other threads, which we trace, have to be waited for as well.
void reap(pid_t child) {
  int status = 0;
  for (;;) {
    const pid_t thread = ::waitpid(-1, &status, __WALL);
    if (thread < 0) return;
    if (thread == child && (WIFEXITED(status) || WIFSIGNALED(status))) return;
  }
}

ChildEnd follow(pid_t child, int call) {
  int status = 0;
  for (;;) {
    const pid_t thread = ::waitpid(-1, &status, __WALL);
    if (thread < 0) return ChildEnd::kFailed;
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      if (thread != child) continue;
      const bool clean = WIFEXITED(status) && WEXITSTATUS(status) == 0;
      return clean ? ChildEnd::kFinished : ChildEnd::kFailed;
    }
    int signal = WSTOPSIG(status);
    if (signal == (SIGTRAP | 0x80)) {
      signal = 0;
      if (enters_disk_call(thread) && call-- == 0) {
        ::kill(child, SIGKILL);
        reap(child);
        return ChildEnd::kKilled;
      }
    } else if (signal == SIGTRAP || signal == SIGSTOP) {
      signal = 0;  // a new thread, or the start
    }
    ::ptrace(PTRACE_SYSCALL, thread, nullptr, reinterpret_cast<void*>(static_cast<long>(signal)));
  }
}

}  // namespace

ChildEnd run_and_kill_before_disk_call(int call, const std::function<void()>& action) {
  constexpr int kRefused = 77;
  const pid_t child = ::fork();
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(kRefused);
    ::raise(SIGSTOP);
    run_child(action);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFSTOPPED(status)) return ChildEnd::kNotPermitted;
  constexpr long kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
  ::ptrace(PTRACE_SETOPTIONS, child, nullptr, reinterpret_cast<void*>(kOptions));
  ::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
  return follow(child, call);
}

bool run_in_child(const std::function<bool()>& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    run_child([&] {
      if (!action()) ::_exit(2);
    });
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace qianli::testing
