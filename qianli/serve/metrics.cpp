#include "qianli/serve/metrics.h"

#include <fmt/core.h>
#include <fmt/format.h>

namespace qianli::serve {
namespace {

template <class Value>
void add(std::string& text, const char* name, const char* kind, const char* help, Value value) {
  fmt::format_to(std::back_inserter(text),
                 "# HELP qianli_{0} {1}\n# TYPE qianli_{0} {2}\nqianli_{0} {3}\n", name, help, kind,
                 value);
}

}  // namespace

void Metrics::count_request(const std::string& endpoint, int status) {
  const std::lock_guard lock(mutex_);
  ++requests_[{endpoint, status}];
}

void Metrics::count_abandoned() {
  const std::lock_guard lock(mutex_);
  ++abandoned_;
}

void Metrics::time_answer(double first_seconds, double seconds) {
  const std::lock_guard lock(mutex_);
  ++answers_;
  first_seconds_ += first_seconds;
  seconds_ += seconds;
}

std::string Metrics::text(const Load& load) const {
  const std::lock_guard lock(mutex_);
  std::string text =
      "# HELP qianli_requests_total Requests by endpoint and status.\n"
      "# TYPE qianli_requests_total counter\n";
  for (const auto& [key, count] : requests_) {
    text += fmt::format("qianli_requests_total{{endpoint=\"{}\",status=\"{}\"}} {}\n", key.first,
                        key.second, count);
  }
  add(text, "requests_abandoned_total", "counter", "Clients that left before the end.", abandoned_);
  add(text, "answers_total", "counter", "Answers given to the end.", answers_);
  add(text, "answer_seconds_total", "counter", "Time of these, summed.", seconds_);
  add(text, "first_token_seconds_total", "counter", "Time until their first text, summed.",
      first_seconds_);
  add(text, "prompt_tokens_total", "counter", "Tokens of prompts.", load.prompt_tokens);
  add(text, "cached_tokens_total", "counter", "Tokens of prompts found in the cache.",
      load.cached_tokens);
  add(text, "generated_tokens_total", "counter", "Tokens generated.", load.generated_tokens);
  add(text, "drafted_tokens_total", "counter", "Tokens drafted by speculation.",
      load.drafted_tokens);
  add(text, "accepted_tokens_total", "counter", "Drafted tokens that the model chose, too.",
      load.accepted_tokens);
  add(text, "preemptions_total", "counter", "Sequences that gave up their blocks.",
      load.preemptions);
  add(text, "sequences_running", "gauge", "Sequences in the batch.", load.running);
  add(text, "sequences_waiting", "gauge", "Sequences that wait for room.", load.waiting);
  add(text, "cache_blocks", "gauge", "Blocks of the key/value cache.", load.blocks);
  add(text, "cache_blocks_held", "gauge", "Blocks that sequences hold.", load.blocks_held);
  return text;
}

}  // namespace qianli::serve
