// What the server needs of whoever computes: the engine, or a fake one in tests.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "qianli/base/json.h"

namespace qianli::serve {

// What a request says; what it leaves out is the model's own default.
struct Sampling {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  double presence_penalty = 0, frequency_penalty = 0;
  std::vector<std::pair<int64_t, double>> logit_bias;
};

constexpr int64_t kNoAdapter = -1;

// One text to generate.
struct Work {
  int64_t adapter = kNoAdapter;  // of the card's
  std::vector<int64_t> prompt;
  Sampling sampling;
  std::optional<int64_t> max_tokens;  // absent: what the context has room for
  bool ignore_eos = false;
  std::vector<std::string> stop, choices;
  int64_t top_log_probs = -1;  // below 0: none
};

struct TokenText {
  std::string text;
  double log_prob = 0;
  std::vector<std::pair<std::string, double>> top;
};

struct Finish {
  std::string reason;  // "stop", "length" or "error"
  std::string error;   // with "error"
  int64_t prompt_tokens = 0, cached_tokens = 0, new_tokens = 0;
};

// Text that is certain, the tokens since the piece before (where log-probabilities were asked for),
// and with the last piece how it ended.
struct Piece {
  std::string text;
  std::vector<TokenText> tokens;
  std::optional<Finish> finish;
};

struct ModelCard {
  std::string id;
  int64_t created = 0;  // seconds since 1970
  int64_t context_length = 0;
  int64_t vocabulary = 0;
  // Attached to the model: for clients, models of these names.
  std::vector<std::string> adapters = {};

  const std::string& name(int64_t adapter) const {
    return adapter == kNoAdapter ? id : adapters[static_cast<size_t>(adapter)];
  }
  // The adapter of this name, kNoAdapter for the model itself; nothing where there is none.
  std::optional<int64_t> find(const std::string& name) const;
};

struct Load {
  int64_t running = 0, waiting = 0, blocks = 0, blocks_held = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0, preemptions = 0;
  int64_t drafted_tokens = 0, accepted_tokens = 0;  // of speculation
};

// Safe to use from many threads.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual const ModelCard& card() const = 0;
  // Throw qianli::Error for what cannot be encoded.
  virtual std::vector<int64_t> encode(const std::string& text) const = 0;
  virtual std::vector<int64_t> encode_chat(const OrderedJson& messages, const OrderedJson& tools,
                                           const OrderedJson& variables) const = 0;
  // `sink` is called from another thread, the last time with a Finish. Throws qianli::Error for
  // work that cannot be done.
  using Sink = std::function<void(Piece)>;
  virtual uint64_t start(Work work, Sink sink) = 0;
  // The last piece still comes.
  virtual void cancel(uint64_t id) = 0;
  virtual Load load() const = 0;
};

}  // namespace qianli::serve
