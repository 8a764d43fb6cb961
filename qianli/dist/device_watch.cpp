#include "qianli/dist/device_watch.h"

#include <exception>
#include <utility>

namespace qianli::dist {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kInterval = 2ms;       // between looks, while the device has something ahead
constexpr auto kWorthTelling = 1s;    // a wait of a device
constexpr auto kErrorsInterval = 1s;  // between questions to the communicators

}  // namespace

DeviceWatch::~DeviceWatch() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void DeviceWatch::follow(Passage passage) {
  const std::lock_guard lock(mutex_);
  if (lost_) return;
  if (passages_.empty()) first_since_ = Clock::now();
  passages_.push_back(std::move(passage));
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  changed_.notify_all();
}

void DeviceWatch::keep(c10::intrusive_ptr<c10d::Backend> communicator) {
  const std::lock_guard lock(mutex_);
  communicators_.push_back(std::move(communicator));
}

void DeviceWatch::check() const {
  const std::lock_guard lock(mutex_);
  if (lost_) throw LostRankError(*lost_);
}

void DeviceWatch::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return passages_.empty() || lost_; });
}

void DeviceWatch::run() {
  std::unique_lock lock(mutex_);
  while (!ends_) {
    if (passages_.empty()) {
      changed_.wait(lock, [this] { return ends_ || !passages_.empty(); });
    } else {
      look();
      if (!passages_.empty()) changed_.wait_for(lock, kInterval, [this] { return ends_; });
    }
  }
}

void DeviceWatch::look() {
  const auto now = Clock::now();
  try {
    while (!passages_.empty() && passages_.front().passed()) {
      if (passages_.front().at_end) passages_.front().at_end();
      passages_.pop_front();
      waiting_.reset();
      first_since_ = now;
    }
  } catch (const std::exception& error) {
    return lose(passages_.front(), error.what());
  }
  if (passages_.empty()) return changed_.notify_all();
  const Passage& first = passages_.front();
  if (now > first.deadline) return lose(first, "the device still waits for it");
  if (!waiting_ && now - first_since_ > kWorthTelling)
    waiting_.emplace(activity_.get(), first.what + " on the device");
  if (now - errors_asked_ < kErrorsInterval) return;
  errors_asked_ = now;
  if (const std::string reason = broken(); !reason.empty()) lose(first, reason);
}

std::string DeviceWatch::broken() const {
  for (const auto& communicator : communicators_) {
    try {
      if (communicator->getError() != c10d::ErrorType::SUCCESS)
        return communicator->getBackendName() + " reports a failed communicator";
    } catch (const std::exception&) {
      // It does not tell: its deadline will.
    }
  }
  return {};
}

void DeviceWatch::lose(const Passage& passage, const std::string& reason) {
  lost_.emplace(passage.error(reason));
  waiting_.reset();
  passages_.clear();
  for (const auto& communicator : communicators_) {
    try {
      communicator->abort();
    } catch (const std::exception&) {
      // The others may still let go.
    }
  }
  changed_.notify_all();
}

}  // namespace qianli::dist
