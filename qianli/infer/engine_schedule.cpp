// Who takes part in the next pass, and which blocks of the cache they have.
#include <algorithm>

#include "qianli/infer/engine_active.h"
#include "qianli/model/rotary.h"

namespace qianli::infer {

// Everyone who is under way goes on, the oldest first; then those who wait, in turn.
std::vector<Engine::Segment> Engine::schedule() {
  std::vector<Segment> segments;
  int64_t budget = options_.tokens_at_once;
  const auto add = [&](Active& active) {
    const int64_t own = std::min(active.remaining(), std::max<int64_t>(budget, 1));
    const int64_t count = own + static_cast<int64_t>(active.drafts.size());
    if (active.remaining() > 1 && budget <= 0) return true;  // a prompt waits for the next pass
    if (!give_blocks(active, active.place.length + count)) return false;
    budget -= count;
    segments.push_back(
        {.active = &active, .count = count, .decodes = !active.generation.tokens.empty()});
    return true;
  };
  for (size_t i = 0; i < running_.size(); ++i) {
    // Giving blocks may have taken them, and the place, from the last one: from this one at worst.
    Active& active = *running_[i];
    if (!add(active)) break;
  }
  while (budget > 0 && !waiting_.empty() &&
         static_cast<int64_t>(running_.size()) < options_.max_sequences) {
    if (!admit(*waiting_.front())) break;
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    add(*running_.back());
  }
  return segments;
}

// Only where all its tokens and the next one have room: what is begun is not taken back at once.
bool Engine::admit(Active& active) {
  if (has_states_ && free_slots_.empty()) return false;
  BlockPool::Match match;
  const bool may_share = options_.share_prefixes && !rotates_by_length(active, active.remaining());
  if (may_share) match = pool_.match(active.tokens, active.chain);
  const int64_t needed = static_cast<int64_t>(active.tokens.size()) / pool_.block_size() + 1;
  if (needed - static_cast<int64_t>(match.blocks.size()) > pool_.available()) {
    for (const int64_t block : match.blocks) pool_.release(block);
    return false;
  }
  active.place.length = static_cast<int64_t>(match.blocks.size()) * pool_.block_size();
  active.published = static_cast<int64_t>(match.blocks.size());
  if (may_share) active.chain = match.chain;
  active.place.blocks = std::move(match.blocks);
  active.head_rows.assign(static_cast<size_t>(heads_), active.place.length);
  active.head_states.assign(static_cast<size_t>(heads_), {});
  if (active.generation.tokens.empty()) {
    active.generation.cached_tokens = active.place.length;
    load_.cached_tokens += active.place.length;
    load_.prompt_tokens += active.generation.prompt_tokens;
  }
  if (has_states_) {
    active.place.slot = free_slots_.back();
    active.has_slot = true;
    free_slots_.pop_back();
    cache_.reset_slot(active.place.slot);
  }
  return true;
}

// Blocks for so many rows; the youngest give theirs up where none is left. False where the sequence
// itself had to.
bool Engine::give_blocks(Active& active, int64_t rows) {
  while (static_cast<int64_t>(active.place.blocks.size()) * pool_.block_size() < rows) {
    if (const auto block = pool_.take()) {
      active.place.blocks.push_back(*block);
      continue;
    }
    if (running_.size() == 1) {
      end(active, StopReason::kContext);
      return false;
    }
    const bool own = running_.back().get() == &active;
    preempt_last();
    if (own) return false;
  }
  return true;
}

// Its tokens are run again when there is room: cheaper than keeping its rows elsewhere.
void Engine::preempt_last() {
  let_go(*running_.back());
  waiting_.push_front(std::move(running_.back()));
  running_.pop_back();
  ++load_.preemptions;
}

void Engine::let_go(Active& active) {
  // The end of a run first, so that its beginning is known longest.
  for (auto block = active.place.blocks.rbegin(); block != active.place.blocks.rend(); ++block) {
    if (*block != ops::kNoBlock) pool_.release(*block);
  }
  if (active.has_slot) free_slots_.push_back(active.place.slot);
  active.has_slot = false;
  active.place = {};
  active.published = 0;
  active.chain = BlockPool::start_of(active.request.adapter);
  active.drafts.clear();
}

void Engine::publish_full_blocks(Active& active) {
  const int64_t size = pool_.block_size(), full = active.place.length / size;
  if (!options_.share_prefixes || rotates_by_length(active, 0)) return;
  for (; active.published < full; ++active.published) {
    const auto first = static_cast<size_t>(active.published * size);
    active.chain =
        pool_.publish(active.place.blocks[static_cast<size_t>(active.published)], active.chain,
                      std::span(active.tokens).subspan(first, static_cast<size_t>(size)));
  }
}

// The next token, at position `length`, sees the keys from length + 1 - window on, and the rows
// that heads make again those as many places before.
void Engine::release_behind_window(Active& active) {
  if (window_ == 0) return;
  const int64_t unseen =
      (active.place.length + 1 - window_ - options_.speculate) / pool_.block_size();
  for (int64_t i = 0; i < unseen; ++i) {
    int64_t& block = active.place.blocks[static_cast<size_t>(i)];
    if (block == ops::kNoBlock) continue;
    pool_.release(block);
    block = ops::kNoBlock;
  }
}

// Whether its rotary table depends on its length, so that it cannot share one with others.
bool Engine::rotates_by_length(const Active& active, int64_t count) const {
  const auto& spec = model_.spec();
  if (spec.position != model::PositionKind::kRotary) return false;
  const int64_t needed = std::max(active.place.length + count, active.generation.prompt_tokens);
  return needed > model::length_independent_up_to(spec.rope, spec.max_position_embeddings);
}

}  // namespace qianli::infer
