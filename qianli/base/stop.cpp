#include "qianli/base/stop.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "qianli/base/error.h"

namespace qianli {
namespace {

std::atomic<int> requested{0};
static_assert(std::atomic<int>::is_always_lock_free, "the flag is set inside a signal handler");

void on_signal(int signal) {
  if (requested.exchange(signal) != 0 && signal == SIGINT) ::_exit(128 + SIGINT);
}

}  // namespace

void install_stop_handler() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  // A reader that goes away (`| head`) is an error of the write, not the death of the program.
  ::signal(SIGPIPE, SIG_IGN);
}

int stop_signal() { return requested.load(); }

void throw_if_stopped(const char* component) {
  if (requested.load() != 0) {
    throw StoppedError(component, "stopped on request", "run the same command again to go on");
  }
}

}  // namespace qianli
