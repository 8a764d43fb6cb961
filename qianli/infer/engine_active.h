// A request under way. Internal to the engine.
#pragma once

#include <optional>

#include "qianli/infer/choices.h"
#include "qianli/infer/engine.h"

namespace qianli::infer {

struct Engine::Active {
  Active(Id given_id, Request given, int64_t vocabulary)
      : id(given_id),
        request(std::move(given)),
        choices(std::move(request.choices)),
        sampler(request.sampling, vocabulary),
        tokens(request.prompt),
        chain(BlockPool::start_of(request.adapter)) {
    sampler.see(tokens);
    generation.prompt_tokens = static_cast<int64_t>(tokens.size());
  }

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int64_t remaining() const { return size() - place.length; }
  // With the drafts behind the tokens.
  int64_t token(int64_t index) const {
    return index < size() ? tokens[static_cast<size_t>(index)]
                          : drafts[static_cast<size_t>(index - size())];
  }

  Id id;
  Request request;
  Choices choices;
  Sampler sampler;
  std::vector<int64_t> tokens;  // the prompt and what was generated
  nn::CachedSequence place;     // of the tokens that have been run
  bool has_slot = false;
  int64_t published = 0;  // blocks whose content is known to the pool
  BlockPool::Chain chain;
  std::vector<int64_t> drafts;  // what may follow the tokens
  // Of each head: the rows behind which its own are final, as they depend on tokens that are
  // certain; and of the head before (none of the first), the states of the rows from there on that
  // are final: [rows, h].
  std::vector<int64_t> head_rows;
  std::vector<at::Tensor> head_states;
  Generation generation;
  std::optional<StopReason> ended;
  TokenListener on_token;
  EndListener on_end;
};

}  // namespace qianli::infer
