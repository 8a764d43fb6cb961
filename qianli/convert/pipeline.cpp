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
  Pipeline(int64_t count, int threads, Buffers& buffers, const Make& make)
      : count_(count), make_(make), buffers_(buffers), ready_(static_cast<size_t>(2 * threads)) {
    buffers_.resize(std::max(buffers_.size(), ready_.size()));
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
      const size_t slot = slot_of(i);
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return ready_[slot] || failure_; });
        if (!ready_[slot]) std::rethrow_exception(failure_);
      }
      take(buffers_[slot]);
      const std::lock_guard lock(mutex_);
      ready_[slot] = false;
      ++taken_;
      changed_.notify_all();
    }
  }

 private:
  size_t slot_of(int64_t i) const { return static_cast<size_t>(i) % ready_.size(); }

  void stop() {
    const std::lock_guard lock(mutex_);
    next_ = count_;
    changed_.notify_all();
  }

  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      const auto room = static_cast<int64_t>(ready_.size());
      changed_.wait(lock, [&] { return next_ >= count_ || next_ < taken_ + room; });
      if (next_ >= count_) return;
      const int64_t i = next_++;
      lock.unlock();
      try {
        make_(i, buffers_[slot_of(i)]);
      } catch (...) {
        lock.lock();
        if (!failure_) failure_ = std::current_exception();
        next_ = count_;
        changed_.notify_all();
        return;
      }
      lock.lock();
      ready_[slot_of(i)] = true;
      changed_.notify_all();
    }
  }

  const int64_t count_;
  const Make& make_;
  Buffers& buffers_;
  std::vector<bool> ready_;  // per buffer: it is made and not taken yet
  int64_t next_ = 0, taken_ = 0;
  std::exception_ptr failure_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::thread> threads_;
};

}  // namespace

void in_order(int64_t count, int threads, Buffers& buffers, const Make& make, const Take& take) {
  if (count > 1) return Pipeline(count, std::max(1, threads), buffers, make).take_all(take);
  if (count == 0) return;
  if (buffers.empty()) buffers.emplace_back();
  make(0, buffers.front());
  take(buffers.front());
}

}  // namespace qianli::convert
