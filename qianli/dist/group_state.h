// What a Group is made of. Internal to the room: the only header with c10d's types.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <chrono>
#include <functional>
#include <mutex>

#include "qianli/dist/activity.h"
#include "qianli/dist/device_side.h"
#include "qianli/dist/group.h"

namespace qianli::dist {

// Who carries a tensor; of a message also the other rank, as the carrier counts, and the tag.
struct Group::Carrier {
  c10d::Backend* backend = nullptr;
  bool on_device = false;
  int peer = 0, tag = 0;
};

struct Group::State {
  std::string name;
  std::vector<int64_t> ranks = {0};
  int64_t rank = 0;
  std::chrono::milliseconds deadline{0};
  Patience patience = Patience::kDeadline;
  c10::intrusive_ptr<c10d::Backend> host;  // Gloo; null: of one rank
  std::shared_ptr<Activity> activity;      // null: of one rank
  std::shared_ptr<DeviceSide> device;      // null: of one rank, or all tensors are the host's
  std::shared_ptr<DeviceWatch> watch;      // of the World; null where it has no device
  std::mutex mutex;                        // of traffic
  Traffic traffic;

  bool on_device(const at::Tensor& values) const { return device && device->takes(values); }
  Carrier carrier(const at::Tensor& values) const;  // for collectives
  Carrier carrier(const at::Tensor& values, Route route, int64_t tag) const;
  std::string where() const;
  // That `what`, a collective or message of the group, was not done.
  LostRankError lost(const std::string& what, const std::string& reason) const;
};

struct Pending::State {
  State();
  ~State();  // at the end of wait(), or with the Pending
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  // The stream waits; whether it has come past is seen to from elsewhere.
  void pass_on_device();

  std::shared_ptr<Group::State> group;
  std::string what;
  bool on_device = false;
  c10::intrusive_ptr<c10d::Work> work;  // null: was waited for
  std::vector<at::Tensor> tensors;
  std::function<void()> waited;  // of a trace; may be empty
};

// The first sentence of what c10d says, without the places in its sources around it.
std::string first_line(const std::string& text);

}  // namespace qianli::dist
