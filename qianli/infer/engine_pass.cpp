// One pass: the decoder over the tokens of several sequences, and the next token of each whose
// tokens have all been run.
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "qianli/base/error.h"
#include "qianli/infer/engine_active.h"

namespace qianli::infer {
namespace {

// log softmax of the logits: of `id` and of the `count` best, the lower id first among equals.
void fill_log_probs(std::span<const float> logits, int64_t count, NewToken& token) {
  const float best = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - best));
  const double log_sum = static_cast<double>(best) + std::log(sum);
  const auto log_prob = [&](int64_t id) {
    return static_cast<double>(logits[static_cast<size_t>(id)]) - log_sum;
  };
  token.log_prob = log_prob(token.id);
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto kept = std::min<int64_t>(count, static_cast<int64_t>(order.size()));
  std::partial_sort(order.begin(), order.begin() + kept, order.end(), [&](int64_t a, int64_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (int64_t i = 0; i < kept; ++i)
    token.top.push_back({order[static_cast<size_t>(i)], log_prob(order[static_cast<size_t>(i)])});
}

}  // namespace

void Engine::run(std::vector<Segment> pass) {
  const auto begin = std::chrono::steady_clock::now();
  // Single tokens, then prompts that go on, then those that begin: the order in which the cache
  // and latent attention want them.
  const auto kind = [](const Segment& segment) {
    return segment.count == 1 ? 0 : segment.active->place.length > 0 ? 1 : 2;
  };
  std::ranges::stable_sort(pass, {}, kind);
  try {
    const at::Tensor hidden = forward(pass);
    std::vector<int64_t> last_rows;
    std::vector<Segment> complete;
    int64_t row = 0;
    for (const Segment& segment : pass) {
      row += segment.count;
      publish_full_blocks(*segment.active);
      release_behind_window(*segment.active);
      if (segment.active->remaining() > 0) continue;
      last_rows.push_back(row - 1);
      complete.push_back(segment);
    }
    at::Tensor logits;
    if (!complete.empty()) {
      const auto rows = at::tensor(last_rows, at::kLong).to(hidden.device());
      logits = model_.decoder().logits(hidden.index_select(0, rows)).to(at::kCPU, at::kFloat);
    }
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    for (const Segment& segment : pass) {
      Generation& generation = segment.active->generation;
      if (generation.tokens.empty()) {
        generation.prompt_seconds += passed.count();
      } else {
        generation.decode_seconds += passed.count();
        generation.decode_steps += segment.active->remaining() == 0;
      }
    }
    ++load_.passes;
    choose_tokens(complete, logits);
  } catch (...) {
    for (const Segment& segment : pass) {
      segment.active->generation.error = std::current_exception();
      end(*segment.active, StopReason::kFailed);
    }
  }
}

// The hidden states of all tokens of the pass, [T, h].
at::Tensor Engine::forward(const std::vector<Segment>& pass) {
  std::vector<int64_t> tokens, positions, starts{0};
  std::vector<nn::CachedSequence*> places;
  int64_t max_position = 0;
  for (const auto& [active, count] : pass) {
    const int64_t first = active->place.length;
    const auto begin = active->tokens.begin() + first;
    tokens.insert(tokens.end(), begin, begin + count);
    for (int64_t i = 0; i < count; ++i) positions.push_back(first + i);
    starts.push_back(starts.back() + count);
    places.push_back(&active->place);
    // Dynamic rotary scaling turns all positions of a prompt by its whole length.
    max_position =
        std::max(max_position, std::max(first + count, active->generation.prompt_tokens) - 1);
  }
  cache_.begin(std::move(places));
  const at::Device device = model_.device();
  return model_.decoder().forward({.tokens = at::tensor(tokens, at::kLong).to(device),
                                   .positions = at::tensor(positions, at::kLong).to(device),
                                   .max_position = max_position,
                                   .segment_starts = starts,
                                   .cache = &cache_});
}

// logits: [complete ones, V] float32 on the CPU.
void Engine::choose_tokens(const std::vector<Segment>& complete, const at::Tensor& logits) {
  for (size_t i = 0; i < complete.size(); ++i) {
    Active& active = *complete[i].active;
    const at::Tensor row = logits[static_cast<int64_t>(i)].contiguous();
    try {
      add_token(active, {row.data_ptr<float>(), static_cast<size_t>(row.numel())});
    } catch (...) {
      active.generation.error = std::current_exception();
      end(active, StopReason::kFailed);
    }
  }
}

void Engine::add_token(Active& active, std::span<float> scores) {
  const Request& request = active.request;
  Generation& generation = active.generation;
  std::vector<int64_t> ends = model_.eos_ids();
  ends.insert(ends.end(), request.stop_ids.begin(), request.stop_ids.end());
  std::vector<float> logits;
  if (request.top_log_probs >= 0) logits.assign(scores.begin(), scores.end());
  if (active.choices.any()) {
    Choices::Next next = active.choices.behind(generation.tokens);
    if (next.may_end) next.ids.insert(next.ids.end(), ends.begin(), ends.end());
    active.sampler.allow(std::move(next.ids));
  }
  NewToken token{.id = active.sampler.pick(scores, active.tokens.size())};
  if (request.top_log_probs >= 0) fill_log_probs(logits, request.top_log_probs, token);
  active.sampler.make(token.id);
  active.tokens.push_back(token.id);
  generation.tokens.push_back(token.id);
  ++load_.generated_tokens;
  const bool goes_on = !active.on_token || active.on_token(token);
  const auto made = static_cast<int64_t>(generation.tokens.size());
  if (active.choices.any()) {
    const Choices::Next next = active.choices.behind(generation.tokens);
    if (next.ids.empty()) return end(active, StopReason::kChoice);
  }
  if (!request.ignore_eos && std::ranges::find(ends, token.id) != ends.end())
    return end(active, StopReason::kEndOfText);
  if (!goes_on) return end(active, StopReason::kListener);
  if (made >= request.max_new_tokens) return end(active, StopReason::kLength);
  if (generation.prompt_tokens + made >= model_.context_limit()) end(active, StopReason::kContext);
}

}  // namespace qianli::infer
