#include "qianli/launch/warden.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <system_error>

#include "qianli/launch/console.h"

namespace qianli::launch {
namespace {

// Numbers arrive whole: they are shorter than PIPE_BUF.
[[noreturn]] void watch_over(int pipe) {
  std::set<pid_t> groups;
  pid_t what = 0;
  for (;;) {
    const ssize_t count = ::read(pipe, &what, sizeof what);
    if (count < 0 && errno == EINTR) continue;
    if (count != sizeof what) break;
    if (what > 0) {
      groups.insert(what);
    } else {
      groups.erase(-what);
    }
  }
  for (const pid_t group : groups) ::kill(-group, SIGKILL);
  ::_exit(0);
}

}  // namespace

Warden::Warden() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw std::system_error(errno, std::generic_category(), "cannot make a pipe");
  pipe_ = Descriptor(ends[1]);
  Descriptor reader(ends[0]);
  process_ = ::fork();
  if (process_ < 0)
    throw std::system_error(errno, std::generic_category(), "cannot start a process");
  if (process_ > 0) return;
  ::setsid();  // out of reach of what is sent to the launcher's group
  ::prctl(PR_SET_NAME, "qianli-warden");
  // Nothing of the launcher's may stay open here: whoever reads its output waits for the end.
  if (::dup2(ends[0], STDIN_FILENO) < 0) ::_exit(1);
  ::close_range(STDOUT_FILENO, ~0u, 0);
  watch_over(STDIN_FILENO);
}

Warden::~Warden() {
  pipe_.close();
  while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void Warden::add(pid_t group) { tell(group); }
void Warden::remove(pid_t group) { tell(-group); }

void Warden::tell(pid_t what) {
  write_all(pipe_.get(), {reinterpret_cast<const char*>(&what), sizeof what});
}

}  // namespace qianli::launch
