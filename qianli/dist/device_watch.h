// Notices that what a device waits for does not come. The thread that started it has gone on: it
// learns of it at its next call of any group. Internal to the room.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "qianli/dist/activity.h"
#include "qianli/dist/group.h"

namespace qianli::dist {

class DeviceWatch {
 public:
  explicit DeviceWatch(std::shared_ptr<Activity> activity) : activity_(std::move(activity)) {}
  ~DeviceWatch();
  DeviceWatch(const DeviceWatch&) = delete;
  DeviceWatch& operator=(const DeviceWatch&) = delete;

  // What a stream is to come past.
  struct Passage {
    std::function<bool()> passed;
    std::string what;  // for the reports of activity
    std::chrono::steady_clock::time_point deadline;
    std::function<LostRankError(const std::string& reason)> error;
    std::function<void()> at_end;  // may be empty
  };
  // Passages of a stream are told in their order.
  void follow(Passage passage);
  // Communicators that end when one passage is lost, so that no thread waits for the device for
  // ever.
  void keep(c10::intrusive_ptr<c10d::Backend> communicator);
  // Throws where something was lost.
  void check() const;
  // Until the streams have come past all, or something is lost.
  void drain();

 private:
  void run();
  void look();  // with the mutex held
  void lose(const Passage& passage, const std::string& reason);
  std::string broken() const;  // which communicator has failed on its own account

  std::shared_ptr<Activity> activity_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::deque<Passage> passages_;
  std::optional<Activity::Waiting> waiting_;  // for the first of them, when it takes long
  std::chrono::steady_clock::time_point first_since_, errors_asked_;
  std::vector<c10::intrusive_ptr<c10d::Backend>> communicators_;
  std::optional<LostRankError> lost_;
  bool ends_ = false;
  std::thread thread_;  // from the first passage on
};

}  // namespace qianli::dist
