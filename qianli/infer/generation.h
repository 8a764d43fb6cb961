// What is asked of a model, and what came of it.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <vector>

#include "qianli/infer/sampler.h"
#include "qianli/nn/adapter_runs.h"

namespace qianli::infer {

struct Request {
  std::vector<int64_t> prompt;  // at least one id
  SamplingOptions sampling;
  int64_t max_new_tokens = 128;
  bool ignore_eos = false;
  std::vector<int64_t> stop_ids;              // end a text like the model's own
  std::vector<std::vector<int64_t>> choices;  // one of these is the answer; empty: anything
  int64_t adapter = nn::kNoAdapter;           // of those attached to the model (tune/attach.h)
  // Log-probabilities of each new token and of so many of the best; below 0: of none.
  int64_t top_log_probs = -1;
};

enum class StopReason {
  kEndOfText,  // an end-of-text token, which is the last of the tokens
  kLength,     // max_new_tokens
  kContext,    // the model's context, or the memory for it, is full
  kSignal,     // Ctrl-C or SIGTERM
  kListener,   // the listener returned false
  kChoice,     // one of the choices is complete
  kCancelled,
  kFailed,  // Generation::error
};
const char* to_string(StopReason reason);

// Of the whole vocabulary, before penalties and filters.
struct TokenLogProb {
  int64_t id;
  double log_prob;
};
struct NewToken {
  int64_t id;
  double log_prob = 0;            // where asked for
  std::vector<TokenLogProb> top;  // the best first
};

struct Generation {
  std::vector<int64_t> tokens;  // new ones only
  StopReason reason = StopReason::kLength;
  std::exception_ptr error;  // with kFailed
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;                        // of the prompt's, found in the cache
  int64_t drafted_tokens = 0, accepted_tokens = 0;  // of speculation
  // Of the passes that this request took part in, whoever else did.
  double prompt_seconds = 0;  // until the logits of the first new token
  int64_t decode_steps = 0;   // tokens that passes behind the prompt's made
  double decode_seconds = 0;

  double prompt_tokens_per_second() const;  // 0 where nothing was run
  double decode_tokens_per_second() const;
};

// Called with every new token; false stops.
using TokenListener = std::function<bool(const NewToken&)>;
using EndListener = std::function<void(const Generation&)>;

}  // namespace qianli::infer
