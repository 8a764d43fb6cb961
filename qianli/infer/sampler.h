// From logits to the next token: transformers' processors in transformers' order (repetition
// penalty, temperature, top-k, top-p), then a draw that is a pure function of (seed, position).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qianli::infer {

struct SamplingOptions {
  double temperature = 0.0;  // 0: greedy, the most probable token; top_k and top_p are then unused
  int64_t top_k = 0;         // keep the k best and what ties with the last of them; 0: all
  double top_p = 1.0;        // keep the smallest set of the best with at least this probability
  double repetition_penalty = 1.0;  // of tokens seen (Keskar et al. 2019, CTRL); 1: none
  uint64_t seed = 0;

  bool greedy() const { return temperature == 0.0; }
  // Throws ConfigError naming the option that is out of range.
  void validate() const;
};

class Sampler {
 public:
  Sampler(const SamplingOptions& options, int64_t vocab_size);

  // Tokens of the sequence, prompt included: the repetition penalty is for them. Ids outside the
  // vocabulary are a programming error.
  void see(std::span<const int64_t> ids);

  // The processors in place; excluded tokens become -infinity. scores: [vocab_size] logits.
  void process(std::span<float> scores);

  // The token at `position` of the sequence; `scores` are processed in place. Throws NonFiniteError
  // where a logit is NaN or +infinity, or all are -infinity.
  int64_t pick(std::span<float> scores, uint64_t position);

 private:
  void penalise(std::span<float> scores) const;
  void keep_top_k(std::span<float> scores);
  void keep_top_p(std::span<float> scores);
  int64_t draw(std::span<const float> scores, uint64_t position) const;

  SamplingOptions options_;
  uint64_t key_;
  std::vector<bool> is_seen_;
  std::vector<int64_t> seen_;  // each id once
  struct Candidate {
    float score;
    int64_t id;
  };
  std::vector<Candidate> candidates_;  // reused between calls
};

}  // namespace qianli::infer
