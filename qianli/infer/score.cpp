#include "qianli/infer/score.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/progress.h"
#include "qianli/base/stop.h"
#include "qianli/infer/engine.h"
#include "qianli/infer/sequence.h"
#include "qianli/model/rotary.h"
#include "qianli/ops/cross_entropy.h"

namespace qianli::infer {
namespace {

constexpr int64_t kLogitsBytes = int64_t{64} << 20;

// A run of one sequence's tokens, standing for as many rows of the decoder's output.
struct Part {
  size_t sequence;
  int64_t first;
  int64_t count;
};

class Scorer {
 public:
  Scorer(Model& model, std::span<const TokenIds> sequences, const ScoreOptions& options,
         const LogitsSink& sink)
      : model_(model), sequences_(sequences), options_(options), sink_(sink) {
    scores_.log_probs.resize(sequences.size());
  }

  Scores run(std::span<const size_t> order) {
    const auto begin = std::chrono::steady_clock::now();
    uint64_t total = 0, done = 0;
    for (const size_t s : order) total += sequences_[s].size();
    std::optional<Progress> progress;
    if (options_.show_progress) progress.emplace("score", total, "tokens");
    while (!order.empty()) {
      throw_if_stopped("score");
      const auto pack = order.first(pack_size(order));
      order = order.subspan(pack.size());
      length_of(pack[0]) > options_.tokens_at_once ? score_in_parts(pack[0]) : score_packed(pack);
      for (const size_t s : pack) done += sequences_[s].size();
      if (progress) progress->update(done);
    }
    for (const auto& row : scores_.log_probs) scores_.tokens += static_cast<int64_t>(row.size());
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    scores_.seconds = passed.count();
    return std::move(scores_);
  }

 private:
  int64_t length_of(size_t s) const { return static_cast<int64_t>(sequences_[s].size()); }

  // Beyond a certain length some rotary scalings depend on the sequence's length.
  bool must_be_alone(size_t s) const {
    const auto& spec = model_.spec();
    return spec.position == model::PositionKind::kRotary &&
           length_of(s) > model::length_independent_up_to(spec.rope, spec.max_position_embeddings);
  }

  // How many of the next sequences go together: at least one.
  size_t pack_size(std::span<const size_t> next) const {
    if (must_be_alone(next[0])) return 1;
    int64_t tokens = length_of(next[0]);
    size_t count = 1;
    for (; count < next.size() && !must_be_alone(next[count]); ++count) {
      tokens += length_of(next[count]);
      if (tokens > options_.tokens_at_once) break;
    }
    return count;
  }

  void score_packed(std::span<const size_t> pack) {
    std::vector<Part> parts;
    std::vector<int64_t> starts{0};
    int64_t longest = 0;
    for (const size_t s : pack) {
      parts.push_back({s, 0, length_of(s)});
      starts.push_back(starts.back() + length_of(s));
      longest = std::max(longest, length_of(s));
    }
    at::Tensor tokens = at::empty({starts.back()}, at::kLong);
    at::Tensor positions = at::empty({starts.back()}, at::kLong);
    for (size_t i = 0; i < pack.size(); ++i) {
      const TokenIds& ids = sequences_[pack[i]];
      std::copy(ids.begin(), ids.end(), tokens.data_ptr<int64_t>() + starts[i]);
      auto* place = positions.data_ptr<int64_t>() + starts[i];
      std::iota(place, place + ids.size(), 0);
    }
    take(model_.decoder().forward({.tokens = tokens.to(model_.device()),
                                   .positions = positions.to(model_.device()),
                                   .max_position = longest - 1,
                                   .segment_starts = starts,
                                   .adapters = nn::same_adapter(options_.adapter, starts.back())}),
         parts);
  }

  void score_in_parts(size_t s) {
    const std::span<const int64_t> ids = sequences_[s];
    Sequence sequence(model_, length_of(s), length_of(s), options_.adapter);
    for (int64_t first = 0; first < length_of(s); first += options_.tokens_at_once) {
      throw_if_stopped("score");
      const Part part{s, first, std::min(options_.tokens_at_once, length_of(s) - first)};
      sequence.append(ids.subspan(part.first, part.count));
      take(sequence.hidden(), {&part, 1});
    }
  }

  // hidden: [rows of all parts, H].
  void take(const at::Tensor& hidden, std::span<const Part> parts) {
    at::Tensor labels = at::zeros({hidden.size(0)}, at::kLong);
    at::Tensor weights = at::zeros({hidden.size(0)}, at::kFloat);  // 0: nothing follows
    int64_t row = 0;
    for (const Part& part : parts) {
      for (int64_t i = part.first; i < part.first + part.count; ++i, ++row) {
        if (i + 1 == length_of(part.sequence)) continue;
        labels.data_ptr<int64_t>()[row] = sequences_[part.sequence][i + 1];
        weights.data_ptr<float>()[row] = 1.0f;
      }
    }
    const at::Tensor losses = losses_of(hidden, labels, weights).to(at::kCPU, at::kDouble);
    row = 0;
    for (const Part& part : parts) {
      for (int64_t i = part.first; i < part.first + part.count; ++i, ++row) {
        if (i + 1 == length_of(part.sequence)) continue;
        append(part.sequence, i + 1, losses.data_ptr<double>()[row]);
      }
    }
  }

  void append(size_t sequence, int64_t token, double loss) {
    if (std::isnan(loss)) {
      throw NonFiniteError("score",
                           fmt::format("sequence {}, token {}: expected a probability, "
                                       "got NaN",
                                       sequence, token),
                           "check the weights, or use --precision fp32");
    }
    scores_.log_probs[sequence].push_back(-loss);
  }

  // Without a sink the logits are never held; with one they pass by in blocks of rows.
  at::Tensor losses_of(const at::Tensor& hidden, const at::Tensor& labels,
                       const at::Tensor& weights) {
    if (!sink_) {
      return model_.decoder()
          .cross_entropy(hidden, labels.to(model_.device()), weights.to(model_.device()))
          .losses;
    }
    const int64_t row_bytes = model_.spec().vocab_size * static_cast<int64_t>(sizeof(float));
    const int64_t block = std::max<int64_t>(1, kLogitsBytes / row_bytes);
    std::vector<at::Tensor> losses;
    for (int64_t first = 0; first < hidden.size(0); first += block) {
      const int64_t count = std::min(block, hidden.size(0) - first);
      const at::Tensor logits =
          model_.decoder().logits(hidden.narrow(0, first, count)).to(at::kCPU);
      losses.push_back(ops::reference::cross_entropy(logits, labels.narrow(0, first, count)));
      sink_(logits.to(at::kFloat).contiguous());
    }
    return at::cat(losses);
  }

  Model& model_;
  std::span<const TokenIds> sequences_;
  ScoreOptions options_;
  const LogitsSink& sink_;
  Scores scores_;
};

}  // namespace

void check_sequences(const Model& model, std::span<const TokenIds> sequences) {
  const int64_t vocabulary = model.spec().vocab_size;
  int64_t longest = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const auto length = static_cast<int64_t>(sequences[s].size());
    if (length == 0)
      throw DataError("score", fmt::format("sequence {}: expected tokens, got none", s));
    if (length > model.position_limit()) {
      throw DataError(
          "score",
          fmt::format("sequence {}: expected at most {} tokens as the model has positions, got {}",
                      s, model.position_limit(), length));
    }
    for (size_t i = 0; i < sequences[s].size(); ++i) {
      const int64_t id = sequences[s][i];
      if (id >= 0 && id < vocabulary) continue;
      throw DataError(
          "score", fmt::format("sequence {}, token {}: expected an id from 0 to {}, got {}", s, i,
                               vocabulary - 1, id));
    }
    longest = std::max(longest, length);
  }
  if (longest > model.context_limit()) {
    log::warn("score", "the longest sequence has {} tokens, the model's context is {}", longest,
              model.context_limit());
  }
}

double Scores::mean_nll() const {
  double sum = 0;
  for (const auto& row : log_probs) {
    for (const double value : row) sum -= value;
  }
  return tokens > 0 ? sum / static_cast<double>(tokens) : std::numeric_limits<double>::quiet_NaN();
}

double Scores::perplexity() const { return std::exp(mean_nll()); }

Scores score(Model& model, std::span<const TokenIds> sequences, const ScoreOptions& options,
             const LogitsSink& sink, std::span<const size_t> order) {
  const at::NoGradGuard no_grad;
  check_sequences(model, sequences);
  check_adapter(model, options.adapter);
  std::vector<size_t> as_they_stand(sequences.size());
  std::iota(as_they_stand.begin(), as_they_stand.end(), size_t{0});
  return Scorer(model, sequences, options, sink).run(order.empty() ? as_they_stand : order);
}

}  // namespace qianli::infer
