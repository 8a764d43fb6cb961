// Ranks as threads of this process, over real Gloo groups: how tests compare layouts with the
// serial run.
#pragma once

#include <functional>

#include "qianli/dist/world.h"

namespace qianli::dist {

// Runs body(world) once per rank, each on a thread of its own that computes with one core, and
// waits for all. An exception of the lowest rank that failed on its own account is rethrown, before
// those that only lost a peer.
void run_ranks(int64_t size, const std::function<void(const World&)>& body,
               std::chrono::milliseconds deadline = std::chrono::seconds(60),
               const std::function<Devices(int64_t rank)>& devices = {});

}  // namespace qianli::dist
