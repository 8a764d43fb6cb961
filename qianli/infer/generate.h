// Continues one prompt token by token: an engine with one request.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "qianli/infer/generation.h"
#include "qianli/infer/model.h"

namespace qianli::infer {

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 128;
  bool ignore_eos = false;
  int64_t adapter = nn::kNoAdapter;
  int64_t speculate = 0;        // as EngineOptions
  int64_t prefill_chunk = 512;  // prompt tokens run through the decoder at once: bounds memory
};

// `prompt`: at least one id. A signal stops it (kSignal). Throws what Engine::submit does, and
// NonFiniteError where the model answers NaN.
Generation generate(Model& model, std::span<const int64_t> prompt, const GenerateOptions& options,
                    const std::function<bool(int64_t id)>& listener = {});

}  // namespace qianli::infer
