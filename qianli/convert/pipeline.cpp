#include "qianli/convert/pipeline.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace qianli::convert {
namespace {

using Make = std::function<void(int64_t, std::vector<std::byte>&)>;
using Take = std::function<void(std::span<const std::byte>)>;

class Pipeline {
 public:
  Pipeline(int64_t count, int threads, const Make& make)
      : count_(count), make_(make), slots_(static_cast<size_t>(2 * threads)) {
    for (int t = 0; t < threads; ++t) threads_.emplace_back([this] { work(); });
  }
  ~Pipeline() {
    stop();
    for (std::thread& thread : threads_) thread.join();
  }
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  void take_all(const Take& take) {
    for (int64_t i = 0; i < count_; ++i) {
      Slot& slot = slot_of(i);
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return slot.ready || failure_; });
        if (!slot.ready) std::rethrow_exception(failure_);
      }
      take(slot.bytes);
      const std::lock_guard lock(mutex_);
      slot.ready = false;
      ++taken_;
      changed_.notify_all();
    }
  }

 private:
  struct Slot {
    std::vector<std::byte> bytes;
    bool ready = false;
  };
  Slot& slot_of(int64_t i) { return slots_[static_cast<size_t>(i) % slots_.size()]; }

  void stop() {
    const std::lock_guard lock(mutex_);
    next_ = count_;
    changed_.notify_all();
  }

  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      const auto room = static_cast<int64_t>(slots_.size());
      changed_.wait(lock, [&] { return next_ >= count_ || next_ < taken_ + room; });
      if (next_ >= count_) return;
      const int64_t i = next_++;
      lock.unlock();
      try {
        make_(i, slot_of(i).bytes);
      } catch (...) {
        lock.lock();
        if (!failure_) failure_ = std::current_exception();
        next_ = count_;
        changed_.notify_all();
        return;
      }
      lock.lock();
      slot_of(i).ready = true;
      changed_.notify_all();
    }
  }

  const int64_t count_;
  const Make& make_;
  std::vector<Slot> slots_;
  int64_t next_ = 0, taken_ = 0;
  std::exception_ptr failure_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::thread> threads_;
};

}  // namespace

void in_order(int64_t count, int threads, const Make& make, const Take& take) {
  if (count > 1) return Pipeline(count, std::max(1, threads), make).take_all(take);
  std::vector<std::byte> buffer;
  for (int64_t i = 0; i < count; ++i) {
    make(i, buffer);
    take(buffer);
  }
}

}  // namespace qianli::convert
