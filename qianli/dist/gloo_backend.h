// Gloo behind c10d's interface. Internal to the room.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <string>

namespace qianli::dist {

// Call before the first group, while no other thread reads the environment. Switches off
// - c10d's list of all collectives of the process: its map of groups is not locked (LibTorch 2.11,
//   FlightRecorder::recordWithResetEnabled), so two threads with groups of their own can crash in
//   it;
// - its warnings with stacks, where TORCH_CPP_LOG_LEVEL asks for nothing else: what they warn of is
//   an error of ours a moment later, or the end of a job in which another rank was first.
void set_up_c10d();

// Meets the other `size` - 1 ranks of the group in `store`; all of them make theirs at the same
// time. With `loopback` the ranks are all on this machine. Throws c10::Error after the deadline.
c10::intrusive_ptr<c10d::Backend> gloo_backend(const c10::intrusive_ptr<c10d::Store>& store,
                                               int64_t rank, int64_t size, bool loopback,
                                               std::chrono::milliseconds deadline);

}  // namespace qianli::dist
