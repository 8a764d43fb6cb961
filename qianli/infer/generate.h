// Continues a prompt token by token.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "qianli/infer/model.h"
#include "qianli/infer/sampler.h"

namespace qianli::infer {

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 128;
  bool ignore_eos = false;
  int64_t prefill_chunk = 512;  // prompt tokens run through the decoder at once: bounds memory
};

enum class StopReason {
  kEndOfText,  // an end-of-text token, which is the last of the tokens
  kLength,     // max_new_tokens
  kContext,    // the model's context is full
  kSignal,     // Ctrl-C or SIGTERM
  kListener,   // the listener returned false
};
const char* to_string(StopReason reason);

struct Generation {
  std::vector<int64_t> tokens;  // new ones only
  StopReason reason = StopReason::kLength;
  int64_t prompt_tokens = 0;
  double prompt_seconds = 0;  // until the logits of the first new token
  int64_t decode_steps = 0;   // tokens fed one by one: one less than the tokens made
  double decode_seconds = 0;

  double prompt_tokens_per_second() const;  // 0 where nothing was run
  double decode_tokens_per_second() const;
};

// Called with every new token; false stops.
using TokenListener = std::function<bool(int64_t id)>;

// `prompt`: at least one id. Throws DataError for an empty prompt, ids outside the vocabulary, and
// a prompt that fills the model's context.
Generation generate(Model& model, std::span<const int64_t> prompt, const GenerateOptions& options,
                    const TokenListener& listener = {});

}  // namespace qianli::infer
