// What every rank of a job is doing, as far as it has told the others: what an error says of those
// that do not answer. Internal to the room.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace qianli::dist {

// "rank 3" or "ranks 0, 1, 2"; of many the first few and how many more.
std::string name_of(const std::vector<int64_t>& ranks);

class Activity {
 public:
  // Tells the others, from a thread of its own, when the calling thread begins something and about
  // every second: what its pieces of work are (base/trace.h), and what the rank waits for. `store`
  // is used by nobody else, since whoever waits in a store keeps others out.
  static std::shared_ptr<Activity> start(c10::intrusive_ptr<c10d::Store> store, int64_t rank,
                                         int64_t size);
  ~Activity();
  Activity(const Activity&) = delete;
  Activity& operator=(const Activity&) = delete;

  // The rank waits for `what` while this lives.
  class Waiting {
   public:
    Waiting(Activity* activity, const std::string& what);
    ~Waiting();
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    Activity* activity_;  // null: nobody is told
    std::list<std::pair<std::string, std::chrono::steady_clock::time_point>>::iterator place_;
  };

  // Runs `wait`, however long it takes, while all of `ranks` are heard of: throws what it throws,
  // or std::runtime_error where one is silent for longer than `deadline`; `wait` is then left alone
  // on a thread of its own, with what it holds.
  void wait_while_heard(const std::vector<int64_t>& ranks, std::chrono::milliseconds deadline,
                        std::function<void()> wait);

  // "rank 0: step 3, B0.1, waits 5.0 s for all_reduce …; ranks 1, 2: step 3, F0.2, not heard of for
  // 4.8 s", or why it cannot be said. Ends within seconds.
  std::string of_all();

 private:
  Activity(c10::intrusive_ptr<c10d::Store> store, int64_t rank, int64_t size);
  void begin(const std::string& work);
  std::string text() const;  // with the mutex held
  void tell(const std::string& text);
  // Which of `ranks` is silent for longer than `deadline`, in words; empty: none.
  std::string missed(const std::vector<int64_t>& ranks, std::chrono::milliseconds deadline) const;
  void tell_regularly();

  c10::intrusive_ptr<c10d::Store> store_;
  const int64_t rank_, size_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<std::string> work_;  // absent: none has begun
  bool is_new_ = false;              // the work, to be told at once
  std::list<std::pair<std::string, std::chrono::steady_clock::time_point>> waiting_;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace qianli::dist
