// What a World is made of. Internal to the room.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include "qianli/dist/activity.h"
#include "qianli/dist/world.h"

namespace qianli::dist {

struct World::State {
  Rendezvous rendezvous;
  bool loopback = false;
  c10::intrusive_ptr<c10d::Store> store;  // null: of one rank
  std::shared_ptr<Activity> activity;     // null: of one rank
};

}  // namespace qianli::dist
