// Gloo behind c10d's interface. Internal to the room.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <string>

namespace qianli::dist {

// Meets the other `size` - 1 ranks of the group in `store`; all of them make theirs at the same
// time. With `loopback` the ranks are all on this machine. Throws c10::Error after the deadline.
c10::intrusive_ptr<c10d::Backend> gloo_backend(const c10::intrusive_ptr<c10d::Store>& store,
                                               int64_t rank, int64_t size, bool loopback,
                                               std::chrono::milliseconds deadline);

}  // namespace qianli::dist
