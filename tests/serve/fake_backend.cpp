#include "tests/serve/fake_backend.h"

#include <algorithm>

#include "qianli/base/error.h"

namespace qianli::testing {

FakeBackend::~FakeBackend() {
  let_go();
  for (std::thread& thread : threads_) thread.join();
}

std::vector<int64_t> FakeBackend::encode(const std::string& text) const {
  if (text == "unencodable") throw DataError("tokenizer", "expected another text");
  std::vector<int64_t> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

std::vector<int64_t> FakeBackend::encode_chat(const OrderedJson& messages, const OrderedJson& tools,
                                              const OrderedJson& variables) const {
  return encode(messages.dump() + tools.dump() + variables.dump());
}

uint64_t FakeBackend::start(serve::Work work, Sink sink) {
  const std::lock_guard lock(mutex_);
  const uint64_t id = works_.size() + 1;
  works_.push_back(work);
  cancelled_[id] = false;
  threads_.emplace_back([this, id, work, sink] { answer(id, work, sink); });
  return id;
}

void FakeBackend::answer(uint64_t id, const serve::Work& work, const Sink& sink) {
  const int64_t words = std::min<int64_t>(work.max_tokens.value_or(3), 3);
  serve::Finish finish{.reason = "length",
                       .prompt_tokens = static_cast<int64_t>(work.prompt.size()),
                       .new_tokens = words};
  for (int64_t i = 0; i < words; ++i) {
    serve::Piece piece{.text = "word" + std::to_string(i) + " "};
    if (work.top_log_probs >= 0) {
      serve::TokenText& token = piece.tokens.emplace_back();
      token = {.text = piece.text, .log_prob = -0.5};
      for (int64_t t = 0; t < work.top_log_probs; ++t) token.top.emplace_back("other", -1.0);
    }
    sink(std::move(piece));
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !held_ || cancelled_[id]; });
    if (cancelled_[id]) finish = {.reason = "error", .error = "cancelled"};
    if (!failure_.empty()) finish = {.reason = "error", .error = failure_};
    if (finish.reason == "error") break;
  }
  sink({.finish = finish});
}

void FakeBackend::cancel(uint64_t id) {
  const std::lock_guard lock(mutex_);
  cancelled_[id] = true;
  changed_.notify_all();
}

void FakeBackend::hold() {
  const std::lock_guard lock(mutex_);
  held_ = true;
}

void FakeBackend::let_go() {
  const std::lock_guard lock(mutex_);
  held_ = false;
  changed_.notify_all();
}

int64_t FakeBackend::wait_for_cancelled(int64_t count) {
  std::unique_lock lock(mutex_);
  const auto now = [&] {
    return std::ranges::count_if(cancelled_, [](const auto& entry) { return entry.second; });
  };
  changed_.wait_for(lock, std::chrono::seconds(20), [&] { return now() >= count; });
  return now();
}

std::vector<serve::Work> FakeBackend::works() {
  const std::lock_guard lock(mutex_);
  return works_;
}

}  // namespace qianli::testing
