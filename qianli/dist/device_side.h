// The device side of a group: one communicator for its collectives and one for each route of its
// messages. Internal to the room.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "qianli/dist/activity.h"
#include "qianli/dist/device_transport.h"
#include "qianli/dist/device_watch.h"
#include "qianli/dist/group.h"

namespace qianli::dist {

struct DeviceCommon {  // of a World
  std::shared_ptr<const DeviceTransport> transport;
  std::shared_ptr<DeviceWatch> watch;
  std::shared_ptr<Activity> activity;
  std::chrono::milliseconds deadline;
};

class DeviceSide {
 public:
  // Meets the others of the group, as its Gloo side has done before. Throws std::exception.
  DeviceSide(DeviceCommon common, c10::intrusive_ptr<c10d::Store> store, std::string name,
             std::vector<int64_t> ranks, int64_t rank, config::CommunicatorOptions options);
  ~DeviceSide();
  DeviceSide(const DeviceSide&) = delete;
  DeviceSide& operator=(const DeviceSide&) = delete;

  bool takes(const at::Tensor& tensor) const { return common_.transport->takes(tensor); }
  const DeviceTransport& transport() const { return *common_.transport; }
  DeviceWatch& watch() const { return *common_.watch; }
  c10d::Backend& collectives() const { return *collectives_; }
  // Throws c10::Error where it was not opened. Its ranks are 0, which sends, and 1.
  c10d::Backend& route(Route route) const;
  void open_routes(std::vector<Route> routes);

 private:
  using Backend = c10::intrusive_ptr<c10d::Backend>;
  // `warm_up` sends the communicator's first number: what libraries set up at first use, they set
  // up here, where all ranks come together, and not between two others of a step.
  Backend open(const Communicator& communicator, const std::vector<int64_t>& ranks,
               std::function<c10::intrusive_ptr<c10d::Work>(c10d::Backend&, at::Tensor)> warm_up);

  DeviceCommon common_;
  c10::intrusive_ptr<c10d::Store> store_;
  std::string name_;
  std::vector<int64_t> ranks_;
  int64_t rank_;
  config::CommunicatorOptions options_;
  Backend collectives_;
  std::map<std::pair<int64_t, int64_t>, Backend> routes_;  // of this rank, by both ends
};

}  // namespace qianli::dist
