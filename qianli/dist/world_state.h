// What a World is made of. Internal to the room.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <map>
#include <set>
#include <string>

#include "qianli/dist/activity.h"
#include "qianli/dist/group_state.h"
#include "qianli/dist/world.h"

namespace qianli::dist {

struct World::State {
  Rendezvous rendezvous;
  bool loopback = false;
  c10::intrusive_ptr<c10d::Store> store;  // null: of one rank
  std::shared_ptr<Activity> activity;     // null: of one rank
  std::set<std::string> names;            // of groups of several ranks for all tensors
  // Null: all tensors are the host's.
  std::shared_ptr<const DeviceTransport> transport;
  std::shared_ptr<DeviceWatch> watch;
  std::map<std::string, config::CommunicatorOptions> options;  // by group

  void use(Devices devices);
  // Where tensors of a device travel in the group.
  void add_device_side(Group::State& group, const c10::intrusive_ptr<c10d::Store>& its_store) const;
};

}  // namespace qianli::dist
