// How the ranks of a context group share the tokens of a microbatch. Pure arithmetic: every rank
// knows what every other one holds.
//
// A group of C ranks is cut into groups of U neighbours that exchange heads, and R = C / U places
// of a ring that keys go round (plan::context_parts). Every place holds a part of each segment:
// of 2 R chunks the place c has the chunks c and 2 R - 1 - c, so that under a causal mask all
// places do the same work (zig-zag); of R chunks, without a mask, the chunk c. Chunks differ by one
// token at most, and so do the places' sums, whatever the lengths of the segments. Adaptive places
// hold neighbouring tokens of an order that fits the mask (data/token_order.h), and send each other
// what it leaves open.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/data/batch.h"
#include "qianli/data/context_part.h"

namespace qianli::data {

enum class ContextAlgorithm {
  kRing,         // keys and values go round all ranks
  kUlysses,      // each rank computes some heads over whole sequences
  kHybrid,       // heads among neighbours, a ring across
  kKvAllGather,  // every rank gets all keys and values
  kAdaptive,     // heads among neighbours; across, what the mask asks for
};
// ring, ulysses, hybrid, kv_allgather, adaptive. Throws ConfigError for another name.
ContextAlgorithm context_algorithm(std::string_view name);

// What of the keys and values that have come from other ranks stays for the backward pass, which
// then need not fetch it again.
enum class KeptKeys { kNone, kKeys, kAll };
// none, half, full. Throws ConfigError for another name.
KeptKeys kept_keys(std::string_view name);

struct ContextOptions {
  int64_t size = 1;  // C
  ContextAlgorithm algorithm = ContextAlgorithm::kRing;
  int64_t inner = 1;   // U of the hybrid and the adaptive algorithm
  int64_t window = 1;  // places of the ring within which keys go round before they go on to the
                       // next such window (double ring): 1, or a divisor of R
  KeptKeys kept = KeptKeys::kNone;
  int64_t kept_interval = 0;  // so many layers between two that keep keep nothing
  bool causal = true;
  int64_t mask_window = 0;  // adaptive: of the widest layer; 0: one has none

  bool operator==(const ContextOptions&) const = default;

  KeptKeys kept_of(int64_t layer) const {  // its number in the model, from 0
    return layer % (kept_interval + 1) == 0 ? kept : KeptKeys::kNone;
  }
  int64_t heads() const;                             // U
  int64_t places() const { return size / heads(); }  // R
};
// What is wrong with them, a sentence each that names the nearest valid values; `query_heads` are
// those of a tensor-parallel rank, `tokens` those of a microbatch.
std::vector<std::string> context_problems(const ContextOptions& options, int64_t query_heads,
                                          int64_t tokens);

class ContextDeal {
 public:
  // segment_starts: [segments + 1], 0 … tokens of the microbatch.
  ContextDeal(std::vector<int64_t> segment_starts, const ContextOptions& options);

  const ContextOptions& options() const { return options_; }
  int64_t segments() const { return static_cast<int64_t>(segment_starts_.size()) - 1; }
  const std::vector<int64_t>& segment_starts() const { return segment_starts_; }
  int64_t tokens() const { return segment_starts_.back(); }

  // Of one place of the ring: its rows are those of its parts, one part after the other.
  const PlaceParts& parts(int64_t place) const;
  const std::vector<PlaceParts>& places() const { return parts_; }
  int64_t rows(int64_t place) const;
  // All rows as one part.
  ContextPart whole() const;
  // The rows of a place, as tokens of the microbatch.
  std::vector<int64_t> tokens_of_place(int64_t place) const;

  // Rank c of the group is at place c / U and keeps the (c mod U)-th part of the place's rows.
  std::vector<int64_t> tokens_of(int64_t rank) const;
  // The rows of that rank as runs that are neighbours in one segment: run i, of rows [starts[i],
  // starts[i + 1]), belongs to segment i mod segments().
  std::vector<int64_t> run_starts(int64_t rank) const;
  int64_t rows_of(int64_t rank) const { return run_starts(rank).back(); }

 private:
  std::vector<int64_t> segment_starts_;
  ContextOptions options_;
  std::vector<PlaceParts> parts_;
};

// ContextDeal(…), made once for several microbatches, and ranks of a process, that have the same
// segments.
std::shared_ptr<const ContextDeal> context_deal(std::vector<int64_t> segment_starts,
                                                const ContextOptions& options);

// ContextDeal::tokens_of of `count` ranks from `first` on, one after the other.
std::vector<int64_t> tokens_of_neighbours(const ContextDeal& deal, int64_t first, int64_t count);

// The rows of `rank` and of the ranks behind it, `neighbours` together, one after the other, with
// `depths` tokens ahead of them (Batch::ahead). `batch` is whole.
Batch deal_out(const Batch& batch, const ContextOptions& options, int64_t rank, int64_t depths,
               int64_t neighbours = 1);

// [segments + 1]: 0 … tokens; rows of the batch, or its packed documents.
std::vector<int64_t> segment_starts(const Batch& batch);

// [1 + depths]: tokens of a whole batch whose mask is set, as the next token's label, and as labels
// depth + 2 tokens ahead of a position in the same segment.
std::vector<double> counted_tokens(const Batch& batch, int64_t depths);

// Of each of the batch's tokens, how many its sample has.
std::vector<int64_t> sample_lengths(const Batch& batch);

// What names a token in the whole training: its sample's number times 2^32, plus its position in
// the sample, whatever documents that has. Of each of the batch's tokens, and of the first token of
// each segment of the whole microbatch. `sample_indices` says the number of each sample.
std::vector<int64_t> token_origins(const Batch& batch);
std::vector<int64_t> segment_origins(const Batch& batch);

}  // namespace qianli::data
