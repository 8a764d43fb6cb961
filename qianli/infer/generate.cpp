#include "qianli/infer/generate.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/infer/sequence.h"

namespace qianli::infer {
namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

void check_prompt(const Model& model, std::span<const int64_t> prompt) {
  if (prompt.empty()) {
    throw DataError("generate", "expected a prompt of at least one token, got none");
  }
  for (const int64_t id : prompt) {
    if (id >= 0 && id < model.spec().vocab_size) continue;
    throw DataError("generate", fmt::format("expected ids below the vocabulary of {}, got {}",
                                            model.spec().vocab_size, id));
  }
  const auto length = static_cast<int64_t>(prompt.size());
  if (length >= model.context_limit()) {
    throw DataError("generate",
                    fmt::format("expected a prompt below the model's context of {} tokens, got {}",
                                model.context_limit(), length),
                    "shorten the prompt");
  }
}

// False where a signal stopped it.
bool prefill(Sequence& sequence, std::span<const int64_t> prompt, int64_t chunk) {
  const auto length = static_cast<int64_t>(prompt.size());
  for (int64_t first = 0; first < length; first += chunk) {
    if (stop_signal() != 0) return false;
    sequence.append(prompt.subspan(first, std::min(chunk, length - first)));
  }
  return true;
}

// Why there is no further token after the last one of `generation`.
std::optional<StopReason> stop_reason(const Model& model, const GenerateOptions& options,
                                      const Generation& generation, bool listener_stops) {
  const auto& eos = model.eos_ids();
  const int64_t id = generation.tokens.back();
  if (!options.ignore_eos && std::find(eos.begin(), eos.end(), id) != eos.end()) {
    return StopReason::kEndOfText;
  }
  if (listener_stops) return StopReason::kListener;
  const auto made = static_cast<int64_t>(generation.tokens.size());
  if (made >= options.max_new_tokens) return StopReason::kLength;
  if (generation.prompt_tokens + made >= model.context_limit()) return StopReason::kContext;
  if (stop_signal() != 0) return StopReason::kSignal;
  return std::nullopt;
}

double rate(int64_t count, double seconds) {
  return count > 0 && seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

}  // namespace

const char* to_string(StopReason reason) {
  switch (reason) {
    case StopReason::kEndOfText:
      return "end_of_text";
    case StopReason::kLength:
      return "length";
    case StopReason::kContext:
      return "context";
    case StopReason::kSignal:
      return "signal";
    case StopReason::kListener:
      return "stopped";
  }
  return "";
}

double Generation::prompt_tokens_per_second() const { return rate(prompt_tokens, prompt_seconds); }
double Generation::decode_tokens_per_second() const { return rate(decode_steps, decode_seconds); }

Generation generate(Model& model, std::span<const int64_t> prompt, const GenerateOptions& options,
                    const TokenListener& listener) {
  check_prompt(model, prompt);
  const auto length = static_cast<int64_t>(prompt.size());
  const int64_t room = std::min(options.max_new_tokens, model.context_limit() - length);
  Generation generation{.prompt_tokens = length};
  if (room <= 0) return generation;
  Sampler sampler(options.sampling, model.spec().vocab_size);
  sampler.see(prompt);
  Sequence sequence(model, length + room, length);

  const Stopwatch prompt_watch;
  if (!prefill(sequence, prompt, options.prefill_chunk)) {
    generation.reason = StopReason::kSignal;
    return generation;
  }
  at::Tensor logits = sequence.logits();
  generation.prompt_seconds = prompt_watch.seconds();
  while (true) {
    const std::span scores(logits.data_ptr<float>(), logits.numel());
    const int64_t id = sampler.pick(scores, length + generation.tokens.size());
    sampler.see({&id, 1});
    generation.tokens.push_back(id);
    const bool listener_stops = listener && !listener(id);
    if (const auto reason = stop_reason(model, options, generation, listener_stops)) {
      generation.reason = *reason;
      return generation;
    }
    const Stopwatch step_watch;
    sequence.append({&id, 1});
    logits = sequence.logits();
    generation.decode_seconds += step_watch.seconds();
    ++generation.decode_steps;
  }
}

}  // namespace qianli::infer
