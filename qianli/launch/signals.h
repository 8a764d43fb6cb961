// Signals as something to wait for, instead of handlers.
#pragma once

#include <signal.h>

#include "qianli/launch/descriptor.h"

namespace qianli::launch {

// From its making to its end, SIGINT, SIGTERM, SIGHUP (unless it was ignored: nohup), SIGUSR1 and
// SIGUSR2 of this process arrive at fd() only.
class SignalWatch {
 public:
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  int fd() const { return descriptor_.get(); }
  int take() const;  // the next signal that has come, or 0

 private:
  sigset_t before_;
  Descriptor descriptor_;
};

}  // namespace qianli::launch
