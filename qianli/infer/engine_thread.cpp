#include "qianli/infer/engine_thread.h"

namespace qianli::infer {

EngineThread::EngineThread(Model& model, const EngineOptions& options)
    : engine_(model, options), load_(engine_.load()), thread_([this] { work(); }) {}

EngineThread::~EngineThread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

EngineThread::Id EngineThread::submit(Request request, TokenListener on_token, EndListener on_end) {
  engine_.check(request);
  const Id id = next_id_++;
  post({id, false, std::move(request), std::move(on_token), std::move(on_end)});
  return id;
}

void EngineThread::cancel(Id id) { post({.id = id, .cancels = true}); }

void EngineThread::post(Message message) {
  {
    const std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(message));
  }
  wake_.notify_one();
}

Engine::Load EngineThread::load() const {
  const std::lock_guard lock(mutex_);
  return load_;
}

void EngineThread::work() {
  bool busy = false, stopping = false;
  while (true) {
    std::vector<Message> messages;
    {
      std::unique_lock lock(mutex_);
      load_ = engine_.load();
      if (!busy) wake_.wait(lock, [&] { return stopping_ || !inbox_.empty(); });
      messages.swap(inbox_);
      stopping = stopping_;
    }
    for (Message& message : messages) take(std::move(message));
    if (stopping) {
      for (const auto& [id, own] : known_) engine_.cancel(own);
    }
    busy = engine_.step();
    if (stopping && known_.empty()) return;
  }
}

void EngineThread::take(Message message) {
  const Id id = message.id;
  const auto known = known_.find(id);
  if (message.cancels) {
    if (known != known_.end()) engine_.cancel(known->second);
    return;
  }
  known_[id] = engine_.submit(std::move(message.request), std::move(message.on_token),
                              [this, id, end = std::move(message.on_end)](const Generation& done) {
                                known_.erase(id);
                                if (end) end(done);
                              });
}

}  // namespace qianli::infer
