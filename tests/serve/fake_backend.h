// Words in the place of a model: it answers every prompt with as many words as it may.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "qianli/serve/backend.h"

namespace qianli::testing {

class FakeBackend : public serve::Backend {
 public:
  ~FakeBackend() override;

  const serve::ModelCard& card() const override { return card_; }
  std::vector<int64_t> encode(const std::string& text) const override;  // its bytes
  std::vector<int64_t> encode_chat(const OrderedJson& messages, const OrderedJson& tools,
                                   const OrderedJson& variables) const override;
  // Piece i is "word<i> ". With `held` it waits behind the first until it is let go or cancelled.
  uint64_t start(serve::Work work, Sink sink) override;
  void cancel(uint64_t id) override;
  serve::Load load() const override { return {.running = 2, .generated_tokens = 17}; }

  void hold();
  void let_go();
  void fail_with(const std::string& message) { failure_ = message; }
  int64_t wait_for_cancelled(int64_t count);  // how many were
  std::vector<serve::Work> works();

 private:
  void answer(uint64_t id, const serve::Work& work, const Sink& sink);

  serve::ModelCard card_{.id = "fake", .created = 5, .context_length = 100, .vocabulary = 256};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  std::string failure_;
  std::map<uint64_t, bool> cancelled_;
  std::vector<serve::Work> works_;
  std::vector<std::thread> threads_;
};

}  // namespace qianli::testing
