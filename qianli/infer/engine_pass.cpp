// One pass: the decoder over the tokens of several sequences, and the next token of each whose
// tokens have all been run.
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

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
  // Few tokens behind others, then prompts that go on, then those that begin: the order in which
  // the cache and latent attention want them. Those with the same adapter stand together.
  const auto order = [](const Segment& segment) {
    const Active& active = *segment.active;
    int kind = active.place.length > 0 ? 1 : 2;
    if (active.remaining() == 1) kind = 0;
    return std::pair(kind, active.request.adapter);
  };
  std::ranges::stable_sort(pass, {}, order);
  try {
    const auto hidden = forward(pass);
    choose_tokens(pass, hidden.normed);
    for (const Segment& segment : pass) {
      if (!segment.active->generation.error) publish_full_blocks(*segment.active);
    }
    if (heads_ > 0) draft(pass, hidden.state);
    for (const Segment& segment : pass) release_behind_window(*segment.active);
  } catch (...) {
    for (const Segment& segment : pass) {
      segment.active->generation.error = std::current_exception();
      end(*segment.active, StopReason::kFailed);
    }
  }
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
  for (const Segment& segment : pass) {
    Generation& generation = segment.active->generation;
    (segment.decodes ? generation.decode_seconds : generation.prompt_seconds) += passed.count();
  }
  ++load_.passes;
}

// The hidden states of all tokens of the pass, [T, h].
nn::MultiTokenPrediction::Predicted Engine::forward(const std::vector<Segment>& pass) {
  std::vector<int64_t> tokens, positions, starts{0};
  std::vector<nn::CachedSequence*> places;
  std::vector<nn::AdapterRun> adapters;
  int64_t max_position = 0;
  for (const Segment& segment : pass) {
    Active& active = *segment.active;
    const int64_t first = active.place.length, count = segment.count;
    for (int64_t i = first; i < first + count; ++i) {
      tokens.push_back(active.token(i));
      positions.push_back(i);
    }
    nn::add_run(adapters, active.request.adapter, starts.back(), count);
    starts.push_back(starts.back() + count);
    places.push_back(&active.place);
    // Dynamic rotary scaling turns all positions of a prompt by its whole length.
    max_position =
        std::max(max_position, std::max(first + count, active.generation.prompt_tokens) - 1);
  }
  cache_.begin(std::move(places));
  const at::Device device = model_.device();
  return model_.decoder().forward_with_state(
      {.tokens = at::tensor(tokens, at::kLong).to(device),
       .positions = at::tensor(positions, at::kLong).to(device),
       .max_position = max_position,
       .segment_starts = starts,
       .cache = &cache_,
       .adapters = std::move(adapters)});
}

// The next token of those whose tokens have all been run, and one more for each draft that is what
// was chosen. hidden: [T, h].
void Engine::choose_tokens(std::vector<Segment>& pass, const at::Tensor& hidden) {
  std::vector<int64_t> rows;
  std::vector<Segment*> complete;
  int64_t end = 0;
  for (Segment& segment : pass) {
    end += segment.count;
    segment.kept = segment.count;
    if (segment.active->remaining() > 0) continue;
    const auto drafts = static_cast<int64_t>(segment.active->drafts.size());
    for (int64_t row = end - drafts - 1; row < end; ++row) rows.push_back(row);
    complete.push_back(&segment);
  }
  if (complete.empty()) return;
  const auto index = at::tensor(rows, at::kLong).to(hidden.device());
  const at::Tensor logits =
      model_.decoder().logits(hidden.index_select(0, index)).to(at::kCPU, at::kFloat);
  int64_t row = 0;
  for (Segment* segment : complete) {
    const auto count = static_cast<int64_t>(segment->active->drafts.size()) + 1;
    try {
      choose_tokens(*segment, logits.narrow(0, row, count).contiguous());
    } catch (...) {
      segment->active->generation.error = std::current_exception();
      this->end(*segment->active, StopReason::kFailed);
    }
    row += count;
  }
}

// logits: [drafts + 1, V] float32 on the CPU. A draft stays where the sampler picks it from the
// model's own logits: so the text is what it would be without drafts.
void Engine::choose_tokens(Segment& segment, const at::Tensor& logits) {
  Active& active = *segment.active;
  Generation& generation = active.generation;
  const std::vector<int64_t> drafts = std::exchange(active.drafts, {});
  const auto vocabulary = static_cast<size_t>(logits.size(1));
  const size_t before = generation.tokens.size();
  int64_t accepted = 0;
  for (int64_t row = 0; row < logits.size(0); ++row) {
    add_token(active, {logits.data_ptr<float>() + row * logits.size(1), vocabulary});
    const bool agrees = row < static_cast<int64_t>(drafts.size()) &&
                        active.tokens.back() == drafts[static_cast<size_t>(row)];
    if (active.ended || !agrees) break;
    ++accepted;
  }
  const int64_t rejected = static_cast<int64_t>(drafts.size()) - accepted;
  active.place.length -= rejected;
  segment.kept -= rejected;
  if (segment.decodes)
    generation.decode_steps += static_cast<int64_t>(generation.tokens.size() - before);
  generation.drafted_tokens += static_cast<int64_t>(drafts.size());
  generation.accepted_tokens += accepted;
  load_.drafted_tokens += static_cast<int64_t>(drafts.size());
  load_.accepted_tokens += accepted;
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
