// From logits to the next token: biases, then transformers' processors in transformers' order
// (repetition penalty, temperature, top-k, top-p, min-p) with OpenAI's penalties behind the first,
// then a draw that is a pure function of (seed, position).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace qianli::infer {

struct SamplingOptions {
  double temperature = 0.0;  // 0: greedy, the most probable token; top_k and top_p are then unused
  int64_t top_k = 0;         // keep the k best and what ties with the last of them; 0: all
  double top_p = 1.0;        // keep the smallest set of the best with at least this probability
  double repetition_penalty = 1.0;  // of tokens seen (Keskar et al. 2019, CTRL); 1: none
  double presence_penalty = 0.0;    // taken off the logit of every token generated so far
  double frequency_penalty = 0.0;   // the same, as often as it was generated
  double min_p = 0.0;  // drop tokens below this share of the best one's probability; 0: none
  std::vector<std::pair<int64_t, double>> logit_bias;  // (id, what is added to its logit)
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
  // The next token, seen and generated.
  void make(int64_t id);
  // Only these may come next; all where nothing is said.
  void allow(std::vector<int64_t> ids) { allowed_ = std::move(ids); }

  // The processors in place; excluded tokens become -infinity. scores: [vocab_size] logits.
  void process(std::span<float> scores);

  // The token at `position` of the sequence; `scores` are processed in place. Throws NonFiniteError
  // where a logit is NaN or +infinity, or all are -infinity.
  int64_t pick(std::span<float> scores, uint64_t position);

 private:
  void keep_allowed(std::span<float> scores) const;
  void penalise(std::span<float> scores) const;
  void keep_min_p(std::span<float> scores) const;
  void keep_top_k(std::span<float> scores);
  void keep_top_p(std::span<float> scores);
  int64_t draw(std::span<const float> scores, uint64_t position) const;

  SamplingOptions options_;
  uint64_t key_;
  std::vector<bool> is_seen_;
  std::vector<int64_t> seen_;                      // each id once
  std::vector<std::pair<int64_t, int64_t>> made_;  // (id, how often)
  std::vector<int64_t> allowed_;
  struct Candidate {
    float score;
    int64_t id;
  };
  std::vector<Candidate> candidates_;  // reused between calls
};

}  // namespace qianli::infer
