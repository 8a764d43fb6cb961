// What a Group is made of. Internal to the room: the only header with c10d's types.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <chrono>
#include <mutex>

#include "qianli/dist/activity.h"
#include "qianli/dist/group.h"

namespace qianli::dist {

struct Group::State {
  std::string name;
  std::vector<int64_t> ranks = {0};
  int64_t rank = 0;
  std::chrono::milliseconds deadline{0};
  Patience patience = Patience::kDeadline;
  c10::intrusive_ptr<c10d::Backend> backend;  // null: of one rank
  std::shared_ptr<Activity> activity;         // null: of one rank
  std::mutex mutex;                           // of traffic
  Traffic traffic;
};

}  // namespace qianli::dist
