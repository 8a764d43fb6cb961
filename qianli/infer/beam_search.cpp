#include "qianli/infer/beam_search.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/infer/block_pool.h"
#include "qianli/infer/engine.h"
#include "qianli/nn/kv_cache.h"

namespace qianli::infer {
namespace {

constexpr int64_t kBlockSize = 32;

struct Hypothesis {
  std::vector<int64_t> tokens;  // new ones
  double log_prob = 0;
  nn::CachedSequence place;
};

struct Candidate {
  size_t parent;
  int64_t id;
  double log_prob;
  bool ends;
};

void check(Model& model, std::span<const int64_t> prompt, const BeamOptions& options) {
  if (options.num_beams < 1 || options.num_beams > 256) {
    throw ConfigError("generate",
                      fmt::format("expected num-beams from 1 to 256, got {}", options.num_beams));
  }
  if (!std::isfinite(options.length_penalty)) {
    throw ConfigError("generate", fmt::format("expected a finite length-penalty, got {}",
                                              options.length_penalty));
  }
  check_prompt(model, prompt);
  check_adapter(model, options.adapter);
}

class Search {
 public:
  Search(Model& model, std::span<const int64_t> prompt, const BeamOptions& options)
      : model_(model),
        options_(options),
        prompt_(prompt.begin(), prompt.end()),
        room_(std::min(options.max_new_tokens,
                       model.context_limit() - static_cast<int64_t>(prompt.size()))),
        pool_(blocks(), kBlockSize),
        cache_(model.spec(),
               {.blocks = pool_.size(), .block_size = kBlockSize, .slots = 2 * options.num_beams},
               model.dtype(), model.device()) {
    if (!options.ignore_eos) ends_ = model.eos_ids();
    ends_.insert(ends_.end(), options.stop_ids.begin(), options.stop_ids.end());
  }

  std::vector<Beam> run() {
    const at::NoGradGuard no_grad;
    begin();
    while (improvement_possible_) {
      std::vector<Candidate> candidates = best_continuations();
      for (Candidate& candidate : candidates) candidate.ends = ends(candidate);
      finish(candidates);
      const bool may_go_on = std::ranges::any_of(candidates, [](auto& c) { return !c.ends; });
      // With a signal what is under way counts as finished.
      if (!may_go_on || stop_signal() != 0) break;
      continue_with(candidates);
      forward();
      look_ahead();
    }
    if (finished_.empty()) {
      for (const Hypothesis& h : running_) finished_.push_back({h.tokens, score(h)});
    }
    std::ranges::stable_sort(finished_, std::greater(), &Beam::score);
    return std::move(finished_);
  }

 private:
  int64_t beams() const { return options_.num_beams; }
  int64_t blocks() const {
    const auto length = static_cast<int64_t>(prompt_.size());
    const int64_t shared = length / kBlockSize + 1;
    return shared + 2 * options_.num_beams * (room_ / kBlockSize + 2);
  }
  double score(const Hypothesis& h) const {
    return h.log_prob / std::pow(static_cast<double>(h.tokens.size()), options_.length_penalty);
  }

  void begin() {
    Hypothesis first;
    give_blocks(first.place, static_cast<int64_t>(prompt_.size()));
    running_ = {std::move(first)};
    constexpr int64_t kChunk = 512;
    const auto length = static_cast<int64_t>(prompt_.size());
    for (int64_t done = 0; done < length; done += kChunk) {
      const int64_t count = std::min(kChunk, length - done);
      run_tokens(std::span(prompt_).subspan(static_cast<size_t>(done), static_cast<size_t>(count)),
                 {0, count});
    }
  }

  void give_blocks(nn::CachedSequence& place, int64_t rows) {
    while (static_cast<int64_t>(place.blocks.size()) * kBlockSize < rows)
      place.blocks.push_back(*pool_.take());
  }

  // Tokens behind the running hypotheses; log_probs_ of what follows each.
  void run_tokens(std::span<const int64_t> tokens, const std::vector<int64_t>& starts) {
    std::vector<int64_t> positions, last;
    std::vector<nn::CachedSequence*> places;
    for (size_t s = 0; s < running_.size(); ++s) {
      places.push_back(&running_[s].place);
      for (int64_t i = starts[s]; i < starts[s + 1]; ++i)
        positions.push_back(running_[s].place.length + i - starts[s]);
      last.push_back(starts[s + 1] - 1);
    }
    const int64_t end =
        std::max<int64_t>(positions.back() + 1, static_cast<int64_t>(prompt_.size()));
    cache_.begin(std::move(places));
    const at::Device device = model_.device();
    const at::Tensor hidden =
        model_.decoder().forward({.tokens = at::tensor(tokens, at::kLong).to(device),
                                  .positions = at::tensor(positions, at::kLong).to(device),
                                  .max_position = end - 1,
                                  .segment_starts = starts,
                                  .cache = &cache_,
                                  .adapters = nn::same_adapter(options_.adapter, starts.back())});
    const at::Tensor rows = hidden.index_select(0, at::tensor(last, at::kLong).to(device));
    const at::Tensor logits = model_.decoder().logits(rows).to(at::kCPU, at::kFloat);
    log_probs_ = at::log_softmax(logits, 1).contiguous();
  }

  void forward() {
    std::vector<int64_t> tokens, starts{0};
    for (Hypothesis& h : running_) {
      give_blocks(h.place, h.place.length + 1);
      tokens.push_back(h.tokens.back());
      starts.push_back(starts.back() + 1);
    }
    run_tokens(tokens, starts);
  }

  std::vector<Candidate> best_continuations() {
    const int64_t vocabulary = log_probs_.size(1);
    at::Tensor sums = log_probs_.clone();
    for (size_t beam = 0; beam < running_.size(); ++beam) {
      const at::Tensor row = sums[static_cast<int64_t>(beam)];
      if (options_.repetition_penalty != 1.0) {
        Sampler sampler({.repetition_penalty = options_.repetition_penalty}, vocabulary);
        sampler.see(prompt_);
        sampler.see(running_[beam].tokens);
        sampler.process({row.data_ptr<float>(), static_cast<size_t>(vocabulary)});
      }
      row.add_(running_[beam].log_prob);
    }
    const int64_t kept = std::min(
        std::max<int64_t>(2, 1 + static_cast<int64_t>(ends_.size())) * beams(), sums.numel());
    const auto [values, places] = at::topk(sums.view(-1), kept);
    std::vector<Candidate> candidates;
    for (int64_t i = 0; i < kept; ++i) {
      const int64_t place = places.data_ptr<int64_t>()[i];
      const double value = values.data_ptr<float>()[i];
      if (!(value > -std::numeric_limits<float>::infinity())) continue;
      candidates.push_back(
          {static_cast<size_t>(place / vocabulary), place % vocabulary, value, false});
    }
    if (candidates.empty())
      throw NonFiniteError("generate", "expected finite logits, got none",
                           "check the weights, or use --precision fp32");
    return candidates;
  }

  bool ends(const Candidate& candidate) const {
    const auto made = static_cast<int64_t>(running_[candidate.parent].tokens.size()) + 1;
    return made >= room_ || std::ranges::find(ends_, candidate.id) != ends_.end();
  }

  // Those that end among the first num_beams candidates count; the rest of the candidates only
  // makes sure that enough go on.
  void finish(const std::vector<Candidate>& candidates) {
    for (size_t i = 0; i < std::min(candidates.size(), static_cast<size_t>(beams())); ++i) {
      if (!candidates[i].ends) continue;
      Hypothesis done{.tokens = running_[candidates[i].parent].tokens,
                      .log_prob = candidates[i].log_prob};
      done.tokens.push_back(candidates[i].id);
      finished_.push_back({done.tokens, score(done)});
    }
    std::ranges::stable_sort(finished_, std::greater(), &Beam::score);
    if (static_cast<int64_t>(finished_.size()) > beams()) finished_.resize(beams());
  }

  // The best that do not end; they share the full blocks of their parents.
  void continue_with(const std::vector<Candidate>& candidates) {
    std::vector<Hypothesis> next;
    const int64_t first_slot = slots_in_upper_half_ ? 0 : beams();
    for (const Candidate& candidate : candidates) {
      if (candidate.ends || static_cast<int64_t>(next.size()) == beams()) continue;
      const Hypothesis& parent = running_[candidate.parent];
      Hypothesis child{.tokens = parent.tokens, .log_prob = candidate.log_prob};
      child.tokens.push_back(candidate.id);
      child.place = fork(parent.place, first_slot + static_cast<int64_t>(next.size()));
      next.push_back(std::move(child));
    }
    for (const Hypothesis& h : running_) {
      for (const int64_t block : h.place.blocks) pool_.release(block);
    }
    running_ = std::move(next);
    slots_in_upper_half_ = !slots_in_upper_half_;
  }

  nn::CachedSequence fork(const nn::CachedSequence& parent, int64_t slot) {
    nn::CachedSequence child = parent;
    child.slot = slot;
    cache_.copy_slot(parent.slot, slot);
    for (const int64_t block : child.blocks) pool_.hold(block);
    if (parent.length % kBlockSize != 0) {  // the last block is going to be written
      child.blocks.back() = *pool_.take();
      cache_.copy_block(parent.blocks.back(), child.blocks.back());
      pool_.release(parent.blocks.back());
    }
    return child;
  }

  // Whether a running hypothesis may still beat the worst finished one, by the length it has now.
  void look_ahead() {
    if (static_cast<int64_t>(finished_.size()) < beams()) return;
    improvement_possible_ = score(running_.front()) > finished_.back().score;
  }

  Model& model_;
  BeamOptions options_;
  std::vector<int64_t> prompt_, ends_;
  int64_t room_;
  BlockPool pool_;
  nn::KvCache cache_;
  std::vector<Hypothesis> running_;
  std::vector<Beam> finished_;
  at::Tensor log_probs_;  // [running, V]
  bool improvement_possible_ = true, slots_in_upper_half_ = false;
};

}  // namespace

std::vector<Beam> beam_search(Model& model, std::span<const int64_t> prompt,
                              const BeamOptions& options) {
  check(model, prompt, options);
  if (options.max_new_tokens <= 0) return {};
  return Search(model, prompt, options).run();
}

}  // namespace qianli::infer
