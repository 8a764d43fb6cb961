// Speculation: the model's heads for multi-token prediction (DeepSeek-V3, arXiv:2412.19437 section
// 2.2) draft tokens between two passes. Head d goes on from the states of the head before it, head
// 0 from those of the decoder, with the token d + 1 places ahead. Behind the last head it goes on
// from its own states, one place further each time.
//
// Heads have keys and values of their own, in the blocks of the sequence. A row of head d is final
// when the token d + 1 places ahead is certain; until then it is made again after each pass.
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "qianli/infer/engine_active.h"

namespace qianli::infer {

struct Engine::Drafting {
  Active* active;
  int64_t wanted;  // drafts
  int64_t length;  // rows that the decoder has run
  // The rows that the next head runs, and what it goes on from: [count, h].
  int64_t first = 0, count = 0;
  at::Tensor state = {};
  int64_t end_row = 0;  // of these, in the head's pass
  Sampler sampler;

  int64_t rows_before_certain_tokens(int64_t ahead) const {
    return std::min(length, active->size() - ahead);
  }
  // Rows of `head`, which the states of the head before, from `first` on, must lead to.
  void begin(size_t head, const at::Tensor& states);
  // The next row of the last head, from its own state.
  void go_on(size_t step, size_t head);
};

void Engine::Drafting::begin(size_t head, const at::Tensor& states) {
  const auto ahead = static_cast<int64_t>(head) + 1;
  int64_t& done = active->head_rows[head];
  at::Tensor& kept = active->head_states[head];
  // `first` is where `states` begin, `done` lies before that by as many rows as were kept.
  state = kept.defined() ? at::cat({kept, states}, 0) : states;
  const int64_t certain = std::max(done, rows_before_certain_tokens(ahead));
  const int64_t before =  // rows of the states that are final
      head == 0 ? length : active->head_rows[head - 1];
  kept =
      before > certain ? state.narrow(0, certain - done, before - certain).clone() : at::Tensor();
  first = std::exchange(done, certain);
  count = (wanted > static_cast<int64_t>(head) ? length : certain) - first;
  state = state.narrow(0, 0, count);
}

void Engine::Drafting::go_on(size_t step, size_t head) {
  const bool goes_on = wanted > static_cast<int64_t>(step);
  if (goes_on) state = state.narrow(0, count - 1, 1);
  first = length + static_cast<int64_t>(step - head) - 1;
  count = goes_on ? 1 : 0;
}

// How many drafts the next pass has use for, after blocks for them were taken.
int64_t Engine::drafts_wanted(Active& active) {
  if (active.remaining() != 1) return 0;
  const auto made = static_cast<int64_t>(active.generation.tokens.size());
  const int64_t room = std::min(active.request.max_new_tokens - made,
                                model_.context_limit() - active.generation.prompt_tokens - made);
  const int64_t wanted = std::clamp<int64_t>(room - 1, 0, options_.speculate);
  while (static_cast<int64_t>(active.place.blocks.size()) * pool_.block_size() <
         active.size() + wanted) {
    const auto block = pool_.take();
    if (!block) break;
    active.place.blocks.push_back(*block);
  }
  const auto rows = static_cast<int64_t>(active.place.blocks.size()) * pool_.block_size();
  return std::clamp<int64_t>(rows - active.size(), 0, wanted);
}

// state: [T, h] of the pass.
std::vector<Engine::Drafting> Engine::begin_drafting(const std::vector<Segment>& pass,
                                                     const at::Tensor& state) {
  std::vector<Drafting> all;
  int64_t row = 0;
  for (const Segment& segment : pass) {
    Active& active = *segment.active;
    const at::Tensor own = state.narrow(0, row, segment.kept);
    row += segment.count;
    // Where the table of positions depends on the length, drafts would change it.
    if (active.ended || active.choices.any() || rotates_by_length(active, 1 + options_.speculate))
      continue;
    all.push_back({.active = &active,
                   .wanted = drafts_wanted(active),
                   .length = active.place.length,
                   .first = active.place.length - segment.kept,
                   .state = own,
                   .sampler = active.sampler});
  }
  return all;
}

void Engine::draft(const std::vector<Segment>& pass, const at::Tensor& state) {
  std::vector<Drafting> all = begin_drafting(pass, state);
  for (size_t step = 0; step < static_cast<size_t>(options_.speculate); ++step) {
    const size_t head = std::min(step, static_cast<size_t>(heads_) - 1);
    std::vector<Drafting*> parts;
    for (Drafting& one : all) {
      if (step == head) {
        one.begin(head, one.state);
      } else {
        one.go_on(step, head);
      }
      if (one.count > 0) parts.push_back(&one);
    }
    if (parts.empty()) return;
    const at::Tensor normed = look_ahead(head, parts);
    std::erase_if(parts, [&](Drafting* one) { return one->wanted <= static_cast<int64_t>(step); });
    if (!parts.empty()) take_drafts(parts, normed);
  }
}

// The head's normed states, [rows of all parts, h]; each part gets the others.
at::Tensor Engine::look_ahead(size_t head, const std::vector<Drafting*>& parts) {
  std::vector<int64_t> tokens, positions, starts{0};
  std::vector<nn::CachedSequence> places;
  std::vector<nn::AdapterRun> adapters;
  std::vector<at::Tensor> states;
  int64_t max_position = 0;
  for (Drafting* part : parts) {
    const Active& active = *part->active;
    for (int64_t i = part->first; i < part->first + part->count; ++i) {
      tokens.push_back(active.token(i + static_cast<int64_t>(head) + 1));
      positions.push_back(i);
    }
    nn::add_run(adapters, active.request.adapter, starts.back(), part->count);
    starts.push_back(starts.back() + part->count);
    part->end_row = starts.back();
    places.push_back({.blocks = active.place.blocks, .length = part->first});
    states.push_back(part->state);
    max_position = std::max({max_position, positions.back(), active.generation.prompt_tokens - 1});
  }
  std::vector<nn::CachedSequence*> pointers;
  for (nn::CachedSequence& place : places) pointers.push_back(&place);
  cache_.begin(std::move(pointers));
  const at::Device device = model_.device();
  const auto predicted =
      model_.decoder().look_ahead(head,
                                  {.tokens = at::tensor(tokens, at::kLong).to(device),
                                   .positions = at::tensor(positions, at::kLong).to(device),
                                   .max_position = max_position,
                                   .segment_starts = starts,
                                   .cache = &cache_,
                                   .adapters = std::move(adapters)},
                                  at::cat(states, 0));
  for (Drafting* part : parts)
    part->state = predicted.state.narrow(0, part->end_row - part->count, part->count);
  return predicted.normed;
}

// What the sampler would pick from the heads' logits: with its own random number, the likeliest to
// be what it picks from the model's.
void Engine::take_drafts(const std::vector<Drafting*>& parts, const at::Tensor& normed) {
  std::vector<int64_t> rows;
  for (const Drafting* part : parts) rows.push_back(part->end_row - 1);
  const at::Tensor logits =
      model_.decoder()
          .logits(normed.index_select(0, at::tensor(rows, at::kLong).to(normed.device())))
          .to(at::kCPU, at::kFloat)
          .contiguous();
  for (size_t i = 0; i < parts.size(); ++i) {
    Active& active = *parts[i]->active;
    const at::Tensor row = logits[static_cast<int64_t>(i)];
    const auto position = static_cast<uint64_t>(active.size()) + active.drafts.size();
    const int64_t id =
        parts[i]->sampler.pick({row.data_ptr<float>(), static_cast<size_t>(row.numel())}, position);
    parts[i]->sampler.make(id);
    active.drafts.push_back(id);
  }
}

}  // namespace qianli::infer
