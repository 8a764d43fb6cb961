// Many requests through one model at a time: continuous batching (Orca, Yu et al., OSDI 2022) over
// a key/value cache in blocks (Kwon et al., arXiv:2309.06180). In every pass each running sequence
// decodes one token, and prompts fill up what is left of the pass, in parts.
//
// What a request generates is a function of the request: neighbours change its logits by rounding
// only.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "qianli/infer/block_pool.h"
#include "qianli/infer/generation.h"
#include "qianli/infer/model.h"
#include "qianli/nn/kv_cache.h"

namespace qianli::infer {

struct EngineOptions {
  int64_t block_size = 32;
  int64_t blocks = 0;  // 0: as cache_bytes allows
  // 0: room for max_sequences whole contexts, but no more than a third of the memory.
  uint64_t cache_bytes = 0;
  int64_t max_sequences = 32;    // that run at a time; the others wait
  int64_t tokens_at_once = 512;  // of a pass: bounds memory, and how long a prompt delays others
  bool share_prefixes = true;    // not of models with recurrent states
  // Tokens that the model's heads for multi-token prediction draft for each sequence between two
  // passes, of which the next pass keeps those that it would have chosen itself (Leviathan et al.,
  // arXiv:2211.17192).
  int64_t speculate = 0;
};

// Throws DataError for an empty prompt, ids outside the vocabulary and a prompt that fills the
// model's context.
void check_prompt(const Model& model, std::span<const int64_t> prompt);

// Throws ConfigError for the number of an adapter that is not attached.
void check_adapter(Model& model, int64_t adapter);

// Not safe to use from several threads; see EngineThread.
class Engine {
 public:
  // `model` must outlive the engine. Throws MemoryError where the cache does not fit, ConfigError
  // where the model has nothing to speculate with, or states that cannot go back.
  Engine(Model& model, const EngineOptions& options);
  ~Engine();

  using Id = uint64_t;
  // Throws what check_prompt does, MemoryError for a prompt that the cache has no room for,
  // ConfigError for sampling options out of range. May be called from any thread.
  void check(const Request& request) const;
  // Throws what check() does. The listeners are called by step().
  Id submit(Request request, TokenListener on_token, EndListener on_end);
  // Ends it with what it has; unknown ids (it has ended) are ignored. on_end is called.
  void cancel(Id id);
  // One pass. False where there was nothing to do.
  bool step();

  struct Load {
    int64_t waiting = 0, running = 0;
    int64_t blocks = 0, blocks_held = 0;
    int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;  // since the start
    int64_t drafted_tokens = 0, accepted_tokens = 0;                     // of speculation
    int64_t preemptions = 0, passes = 0;
  };
  Load load() const;
  const Model& model() const { return model_; }

 private:
  struct Active;  // a request under way
  struct Segment {
    Active* active;
    int64_t count;         // of its tokens and drafts, in this pass
    bool decodes = false;  // it had new tokens before
    int64_t kept = 0;      // rows of the pass that stay in the cache
  };
  struct Drafting;  // engine_draft.cpp
  using Actives = std::deque<std::unique_ptr<Active>>;

  // engine_schedule.cpp
  std::vector<Segment> schedule();
  bool admit(Active& active);
  bool give_blocks(Active& active, int64_t rows);
  void preempt_last();
  void let_go(Active& active);
  void publish_full_blocks(Active& active);
  void release_behind_window(Active& active);
  bool rotates_by_length(const Active& active, int64_t count) const;

  // engine_pass.cpp
  void run(std::vector<Segment> pass);
  nn::MultiTokenPrediction::Predicted forward(const std::vector<Segment>& pass);
  void choose_tokens(std::vector<Segment>& pass, const at::Tensor& hidden);
  void choose_tokens(Segment& segment, const at::Tensor& logits);
  void add_token(Active& active, std::span<float> scores);

  // engine_draft.cpp
  void draft(const std::vector<Segment>& pass, const at::Tensor& state);
  int64_t drafts_wanted(Active& active);
  std::vector<Drafting> begin_drafting(const std::vector<Segment>& pass, const at::Tensor& state);
  at::Tensor look_ahead(size_t head, const std::vector<Drafting*>& parts);
  void take_drafts(const std::vector<Drafting*>& parts, const at::Tensor& normed);

  void end(Active& active, StopReason reason);
  void sweep();

  Model& model_;
  EngineOptions options_;
  BlockPool pool_;
  nn::KvCache cache_;
  int64_t heads_;  // that draft
  bool has_states_;
  int64_t window_ = 0;  // no layer sees further back; 0: some see all
  std::vector<int64_t> free_slots_;
  Actives waiting_, running_;  // the oldest first
  Id next_id_ = 1;
  Load load_;
};

}  // namespace qianli::infer
