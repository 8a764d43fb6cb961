// Ends process groups when the launcher dies without a chance to do so itself (kill -9, a crash).
// PR_SET_PDEATHSIG reaches the ranks only, not what they started.
#pragma once

#include <sys/types.h>

#include "qianli/launch/descriptor.h"

namespace qianli::launch {

// A small process of its own that holds a list of process groups and one end of a pipe. When the
// other end is gone, it kills the groups.
class Warden {
 public:
  Warden();
  ~Warden();
  Warden(const Warden&) = delete;
  Warden& operator=(const Warden&) = delete;

  void add(pid_t group);
  // Before the group's leader is waited for: its number is free afterwards.
  void remove(pid_t group);

 private:
  void tell(pid_t what);
  Descriptor pipe_;
  pid_t process_ = -1;
};

}  // namespace qianli::launch
