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
        tokens(request.prompt) {
    sampler.see(tokens);
    generation.prompt_tokens = static_cast<int64_t>(tokens.size());
  }

  int64_t remaining() const { return static_cast<int64_t>(tokens.size()) - place.length; }

  Id id;
  Request request;
  Choices choices;
  Sampler sampler;
  std::vector<int64_t> tokens;  // the prompt and what was generated
  nn::CachedSequence place;     // of the tokens that have been run
  bool has_slot = false;
  int64_t published = 0;  // blocks whose content is known to the pool
  BlockPool::Chain chain = BlockPool::kStart;
  Generation generation;
  std::optional<StopReason> ended;
  TokenListener on_token;
  EndListener on_end;
};

}  // namespace qianli::infer
