// Beam search: the most probable continuations as wholes. The rules are those of transformers
// (`generate(num_beams=N, do_sample=False)`).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "qianli/infer/model.h"

namespace qianli::infer {

struct BeamOptions {
  int64_t num_beams = 4;
  // A finished text's score is its log-probability / new tokens ^ length_penalty.
  double length_penalty = 1.0;
  int64_t max_new_tokens = 128;
  bool ignore_eos = false;
  std::vector<int64_t> stop_ids;  // end a text like the model's own
  double repetition_penalty = 1.0;
  int64_t adapter = nn::kNoAdapter;
};

struct Beam {
  std::vector<int64_t> tokens;  // new ones, with the end-of-text token where one came
  double score = 0;
};

// The best num_beams continuations, the best first. A signal ends the search with what it has.
// Throws what Engine::submit does, and ConfigError for options out of range.
std::vector<Beam> beam_search(Model& model, std::span<const int64_t> prompt,
                              const BeamOptions& options);

}  // namespace qianli::infer
