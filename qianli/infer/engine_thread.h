// An engine in a thread of its own, for callers in any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "qianli/infer/engine.h"

namespace qianli::infer {

class EngineThread {
 public:
  EngineThread(Model& model, const EngineOptions& options);
  // Cancels what still runs.
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  using Id = uint64_t;
  // Throws what Engine::check does. The listeners are called in the engine's thread and must not
  // wait.
  Id submit(Request request, TokenListener on_token, EndListener on_end);
  void cancel(Id id);
  Engine::Load load() const;  // after the last pass

 private:
  struct Message {
    Id id;
    bool cancels;
    Request request;
    TokenListener on_token;
    EndListener on_end;
  };
  void post(Message message);
  void work();
  void take(Message message);

  Engine engine_;
  std::unordered_map<Id, Engine::Id> known_;  // of the thread alone
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Message> inbox_;
  Engine::Load load_;
  bool stopping_ = false;
  std::atomic<Id> next_id_ = 1;
  std::thread thread_;
};

}  // namespace qianli::infer
