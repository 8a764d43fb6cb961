// The texts of one request while they are made: the engine's thread puts pieces in, the
// connection's takes them out.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "qianli/serve/backend.h"

namespace qianli::serve {

class Job {
 public:
  // Starts all of them. Throws what Backend::start does, after taking back those begun.
  Job(Backend& backend, std::vector<Work> works);
  // Cancels what is not finished.
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  struct Item {
    size_t index;
    Piece piece;
  };
  // The next piece; nothing where none came in time.
  std::optional<Item> next(std::chrono::milliseconds patience);
  // All finishes have been taken.
  bool finished() const { return open_ == 0; }

 private:
  struct Mailbox {
    std::mutex mutex;
    std::condition_variable arrived;
    std::deque<Item> items;
  };
  void cancel_all();

  Backend& backend_;
  std::shared_ptr<Mailbox> mailbox_;  // outlives the job where a piece still comes
  std::vector<uint64_t> ids_;
  size_t open_ = 0;
};

}  // namespace qianli::serve
