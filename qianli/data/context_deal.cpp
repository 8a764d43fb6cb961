#include "qianli/data/context_deal.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <numeric>
#include <stdexcept>

#include "qianli/data/batch_parts.h"
#include "qianli/data/sequence_slice.h"
#include "qianli/data/token_order.h"

namespace qianli::data {
namespace {

// The lengths of a segment's chunks. Tokens that are over go to the places in turn, from `next` on,
// so that no place gets more of them than another over many segments.
std::vector<int64_t> chunk_lengths(int64_t length, int64_t chunks, int64_t places, int64_t& next) {
  std::vector<int64_t> lengths(static_cast<size_t>(chunks), length / chunks);
  for (int64_t left = length % chunks; left > 0; --left, next = (next + 1) % places) {
    int64_t& first = lengths[static_cast<size_t>(next)];
    const bool second = first > length / chunks;
    ++(second ? lengths[static_cast<size_t>(chunks - 1 - next)] : first);
  }
  return lengths;
}

// values[i + shift] at i within each segment, 0 where that lies behind its end.
template <class T>
std::vector<T> shifted(const std::vector<T>& values, const std::vector<int64_t>& starts,
                       int64_t shift) {
  std::vector<T> out(values.size(), T{});
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    for (int64_t i = starts[s]; i + shift < starts[s + 1]; ++i)
      out[static_cast<size_t>(i)] = values[static_cast<size_t>(i + shift)];
  }
  return out;
}

// Of the whole microbatch that the batch is, or is a part of.
std::vector<int64_t> whole_starts(const Batch& batch) {
  if (batch.context) return batch.context->segment_starts();
  return batch.slice ? batch.slice->segment_starts : segment_starts(batch);
}

// [samples + 1], of the whole microbatch.
std::vector<int64_t> whole_sample_starts(const Batch& batch) {
  const auto samples = static_cast<int64_t>(batch.sample_indices.size());
  const int64_t all = whole_starts(batch).back();
  std::vector<int64_t> starts = batch.sample_starts;
  if (starts.empty()) {
    if (samples == 0 || all % samples != 0)
      throw std::logic_error("expected rows of one length with a sample's number each");
    for (int64_t row = 0; row < samples; ++row) starts.push_back(row * (all / samples));
  }
  starts.push_back(all);
  return starts;
}

// Of a whole microbatch's tokens: those of the batch.
std::vector<int64_t> tokens_of_whole(const Batch& batch) {
  if (batch.context) {
    return tokens_of_neighbours(*batch.context, batch.context_rank, batch.context_neighbours);
  }
  if (batch.slice) return batch.slice->tokens;
  std::vector<int64_t> tokens(batch.tokens.size());
  std::iota(tokens.begin(), tokens.end(), int64_t{0});
  return tokens;
}

// Which sample a token is of.
size_t sample_of(int64_t token, const std::vector<int64_t>& starts) {
  return static_cast<size_t>(std::ranges::upper_bound(starts, token) - starts.begin() - 1);
}

// Turns tokens of the whole microbatch into what names them.
std::vector<int64_t> origins_of(std::vector<int64_t> tokens, const Batch& batch) {
  const auto starts = whole_sample_starts(batch);
  for (int64_t& token : tokens) {
    // The end of the microbatch is that of its last sample.
    const size_t at = std::min(sample_of(token, starts), starts.size() - 2);
    const auto sample = static_cast<uint64_t>(batch.sample_indices[at]);
    token = static_cast<int64_t>(sample << 32) + (token - starts[at]);
  }
  return tokens;
}

}  // namespace

ContextDeal::ContextDeal(std::vector<int64_t> segment_starts, const ContextOptions& options)
    : segment_starts_(std::move(segment_starts)), options_(options) {
  const int64_t places = options_.places();
  if (places == 1) {
    parts_ = {{whole()}};
    return;
  }
  if (options_.algorithm == ContextAlgorithm::kAdaptive) {
    parts_ = adaptive_parts({segment_starts_, options_.causal, options_.mask_window}, places);
    return;
  }
  const int64_t per_place = options_.causal ? 2 : 1, chunks = per_place * places;
  parts_.assign(static_cast<size_t>(places), PlaceParts(static_cast<size_t>(per_place), {{0}, {}}));
  int64_t next = 0;
  for (size_t s = 0; s + 1 < segment_starts_.size(); ++s) {
    const auto lengths =
        chunk_lengths(segment_starts_[s + 1] - segment_starts_[s], chunks, places, next);
    int64_t position = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const bool second = chunk >= places;
      const int64_t place = second ? chunks - 1 - chunk : chunk;
      ContextPart& part = parts_[static_cast<size_t>(place)][second ? 1 : 0];
      const int64_t length = lengths[static_cast<size_t>(chunk)];
      part.positions.push_back(position);
      part.starts.push_back(part.starts.back() + length);
      position += length;
    }
  }
}

std::shared_ptr<const ContextDeal> context_deal(std::vector<int64_t> segment_starts,
                                                const ContextOptions& options) {
  constexpr size_t kRemembered = 16;
  static std::mutex mutex;
  static std::deque<std::shared_ptr<const ContextDeal>> last;  // the newest first
  const std::lock_guard lock(mutex);
  const auto known = std::ranges::find_if(last, [&](const auto& deal) {
    return deal->options() == options && deal->segment_starts() == segment_starts;
  });
  if (known != last.end()) return *known;
  last.push_front(std::make_shared<const ContextDeal>(std::move(segment_starts), options));
  if (last.size() > kRemembered) last.pop_back();
  return last.front();
}

const PlaceParts& ContextDeal::parts(int64_t place) const {
  return parts_[static_cast<size_t>(place)];
}

int64_t ContextDeal::rows(int64_t place) const {
  int64_t rows = 0;
  for (const auto& part : parts(place)) rows += part.rows();
  return rows;
}

ContextPart ContextDeal::whole() const {
  return {segment_starts_, std::vector<int64_t>(segment_starts_.size() - 1, 0)};
}

std::vector<int64_t> ContextDeal::tokens_of_place(int64_t place) const {
  std::vector<int64_t> tokens;
  for (const auto& part : parts(place)) {
    for (size_t s = 0; s < part.positions.size(); ++s) {
      const int64_t first = segment_starts_[s] + part.positions[s];
      for (int64_t i = 0; i < part.starts[s + 1] - part.starts[s]; ++i) tokens.push_back(first + i);
    }
  }
  return tokens;
}

std::vector<int64_t> ContextDeal::tokens_of(int64_t rank) const {
  const int64_t heads = options_.heads(), place = rank / heads;
  const auto all = tokens_of_place(place);
  const auto starts = even_starts(static_cast<int64_t>(all.size()), heads);
  const auto own = static_cast<size_t>(rank % heads);
  return {all.begin() + starts[own], all.begin() + starts[own + 1]};
}

std::vector<int64_t> ContextDeal::run_starts(int64_t rank) const {
  const int64_t heads = options_.heads(), place = rank / heads;
  const auto starts = even_starts(rows(place), heads);
  const int64_t begin = starts[static_cast<size_t>(rank % heads)],
                end = starts[static_cast<size_t>(rank % heads) + 1];
  std::vector<int64_t> runs = {0};
  int64_t before = 0;  // rows of the parts before
  for (const auto& part : parts(place)) {
    for (size_t s = 1; s < part.starts.size(); ++s)
      runs.push_back(std::clamp(before + part.starts[s], begin, end) - begin);
    before += part.rows();
  }
  return runs;
}

std::vector<int64_t> segment_starts(const Batch& batch) {
  std::vector<int64_t> starts = {0};
  if (batch.segment_ends.empty()) {
    for (int64_t row = 1; row <= batch.sequences; ++row)
      starts.push_back(row * batch.sequence_length);
  } else {
    starts.insert(starts.end(), batch.segment_ends.begin(), batch.segment_ends.end());
  }
  return starts;
}

std::vector<Ahead> ahead_of(const Batch& batch, const std::vector<int64_t>& segment_starts,
                            const std::vector<int64_t>& tokens, int64_t depths) {
  std::vector<Ahead> ahead;
  const auto at = [&](const auto& values, int64_t shift) {
    return taken(shifted(values, segment_starts, shift), tokens);
  };
  for (int64_t shift = 1; shift <= depths; ++shift) {
    ahead.push_back({.tokens = at(batch.tokens, shift),
                     .labels = at(batch.labels, shift),
                     .loss_mask = at(batch.loss_mask, shift)});
  }
  return ahead;
}

std::vector<int64_t> tokens_of_neighbours(const ContextDeal& deal, int64_t first, int64_t count) {
  std::vector<int64_t> all;
  for (int64_t rank = first; rank < first + count; ++rank) {
    const auto tokens = deal.tokens_of(rank);
    all.insert(all.end(), tokens.begin(), tokens.end());
  }
  return all;
}

Batch deal_out(const Batch& batch, const ContextOptions& options, int64_t rank, int64_t depths,
               int64_t neighbours) {
  const auto deal = context_deal(segment_starts(batch), options);
  const auto own = tokens_of_neighbours(*deal, rank, neighbours);
  std::vector<int64_t> runs = {0};
  for (int64_t r = rank; r < rank + neighbours; ++r) {
    const int64_t before = runs.back();
    const auto starts = deal->run_starts(r);
    for (size_t i = 1; i < starts.size(); ++i) runs.push_back(before + starts[i]);
  }
  Batch part{.sequences = 1,
             .sequence_length = static_cast<int64_t>(own.size()),
             .tokens = taken(batch.tokens, own),
             .labels = taken(batch.labels, own),
             .loss_mask = taken(batch.loss_mask, own),
             .positions = taken(batch.positions, own),
             .segment_ends = {runs.begin() + 1, runs.end()},
             .sample_indices = batch.sample_indices,
             .sample_starts = batch.sample_starts,
             .context = deal,
             .context_rank = rank,
             .context_neighbours = neighbours,
             .max_position = *std::ranges::max_element(batch.positions)};
  part.ahead = ahead_of(batch, deal->segment_starts(), own, depths);
  part.counted = counted_tokens(batch, depths);
  return part;
}

std::vector<double> counted_tokens(const Batch& batch, int64_t depths) {
  std::vector<double> counted(static_cast<size_t>(depths) + 1, 0.0);
  const auto add = [&](size_t depth, int64_t first, int64_t end) {
    counted[depth] = std::accumulate(batch.loss_mask.begin() + first, batch.loss_mask.begin() + end,
                                     counted[depth]);
  };
  const std::vector<int64_t> starts = segment_starts(batch);
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    for (int64_t depth = 0; depth <= depths; ++depth)
      add(static_cast<size_t>(depth), std::min(starts[s] + depth, starts[s + 1]), starts[s + 1]);
  }
  return counted;
}

std::vector<int64_t> sample_lengths(const Batch& batch) {
  const auto starts = whole_sample_starts(batch);
  std::vector<int64_t> lengths = tokens_of_whole(batch);
  for (int64_t& token : lengths) {
    const size_t at = sample_of(token, starts);
    token = starts[at + 1] - starts[at];
  }
  return lengths;
}

std::vector<int64_t> token_origins(const Batch& batch) {
  return origins_of(tokens_of_whole(batch), batch);
}

std::vector<int64_t> segment_origins(const Batch& batch) {
  std::vector<int64_t> starts = whole_starts(batch);
  starts.pop_back();
  return origins_of(std::move(starts), batch);
}

}  // namespace qianli::data
