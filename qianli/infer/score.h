// How probable given tokens are under a model.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "qianli/infer/model.h"

namespace qianli::infer {

struct Scores {
  // Per sequence the natural log-probability of tokens 1 … n-1 given those before: n - 1 numbers.
  std::vector<std::vector<double>> log_probs;
  int64_t tokens = 0;  // how many in all
  double seconds = 0;

  // Of all scored tokens; NaN where there is none.
  double mean_nll() const;
  double perplexity() const;
};

struct ScoreOptions {
  // Tokens run through the decoder at once: short sequences are packed up to it, longer ones go
  // through a key/value cache in parts of it. Bounds memory, changes nothing else.
  int64_t tokens_at_once = 2048;
  bool show_progress = false;  // on standard error
  int64_t adapter = nn::kNoAdapter;
};

using TokenIds = std::vector<int64_t>;
// Takes rows of logits, float32 [rows, V] on the CPU: the sequences in the order in which they were
// asked for, their rows in order.
using LogitsSink = std::function<void(const at::Tensor& rows)>;

// What score() refuses, before anything is computed or written.
void check_sequences(const Model& model, std::span<const TokenIds> sequences);

// Sequences in the order `order` names them (all, in any order; empty: as they stand); log_probs
// are in the order of `sequences`. Throws DataError for an empty sequence and ids outside the
// vocabulary, NonFiniteError where the model answers NaN.
Scores score(Model& model, std::span<const TokenIds> sequences, const ScoreOptions& options = {},
             const LogitsSink& sink = {}, std::span<const size_t> order = {});

}  // namespace qianli::infer
