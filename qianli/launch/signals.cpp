#include "qianli/launch/signals.h"

#include <errno.h>
#include <sys/signalfd.h>

#include <system_error>

namespace qianli::launch {

SignalWatch::SignalWatch() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGUSR2}) sigaddset(&signals, signal);
  struct sigaction hang_up {};
  ::sigaction(SIGHUP, nullptr, &hang_up);
  if (hang_up.sa_handler != SIG_IGN) sigaddset(&signals, SIGHUP);
  ::sigprocmask(SIG_BLOCK, &signals, &before_);
  descriptor_ = Descriptor(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!descriptor_)
    throw std::system_error(errno, std::generic_category(), "cannot watch for signals");
}

SignalWatch::~SignalWatch() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }

int SignalWatch::take() const {
  signalfd_siginfo info{};
  return ::read(descriptor_.get(), &info, sizeof info) == sizeof info
             ? static_cast<int>(info.ssi_signo)
             : 0;
}

}  // namespace qianli::launch
