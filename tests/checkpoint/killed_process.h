// Runs an action in a forked child and kills it (SIGKILL) just before one of its system calls that
// change the disk: what a crash leaves behind at every point of a save, without hooks in the saving
// code.
#pragma once

#include <functional>

namespace qianli::testing {

enum class ChildEnd {
  kKilled,        // before the call that was asked for
  kFinished,      // the action made fewer such calls
  kFailed,        // the action threw
  kNotPermitted,  // this system does not let a process trace its child
};

// `call` counts from 0, over all threads of the child.
ChildEnd run_and_kill_before_disk_call(int call, const std::function<void()>& action);

// Runs the action in a child under `prepare`'s limits: true where it returned true.
bool run_in_child(const std::function<bool()>& action);

}  // namespace qianli::testing
