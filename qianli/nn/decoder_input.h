// What the layers of one forward pass are given.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "qianli/data/context_deal.h"
#include "qianli/data/sequence_slice.h"
#include "qianli/nn/adapter_runs.h"
#include "qianli/nn/unit_use.h"

namespace qianli::nn {

class KvCache;
class SliceKeys;

// Of each position, the token and the label some tokens further on in its segment.
struct AheadTokens {
  at::Tensor tokens, labels;  // [T] int64
};

// What a training drops of the activations of one microbatch, and adds to them (nn/dropout.h).
struct Dropouts {
  double attention = 0, hidden = 0, embedding = 0;  // rates
  uint64_t key = 0;                                 // of the training's seed and the step
  at::Tensor origins;                               // [T] int64: data::token_origins
  std::vector<int64_t> segment_origins;             // data::segment_origins
  double noise = 0;                                 // NEFTune's alpha
  at::Tensor sample_lengths;                        // with noise, [T] int64: data::sample_lengths
};

// T tokens of one or more packed sequences.
struct DecoderInput {
  at::Tensor tokens;         // [T] int64
  at::Tensor positions;      // [T] int64
  int64_t max_position = 0;  // no position lies behind it
  std::vector<int64_t>
      segment_starts;  // [segments + 1]: 0 … T; nothing crosses from one to another
  // Training where ranks share the sequences: how. The tokens are then those of this rank alone,
  // and the segments its runs of neighbours (ContextDeal::run_starts). Null: all tokens are here.
  std::shared_ptr<const data::ContextDeal> context;
  // Training where the sequences come in slices: which these tokens are, and the keys of those
  // before. The segments are then the slice's runs. Null: whole sequences.
  std::shared_ptr<const data::SequenceSlice> slice;
  std::shared_ptr<SliceKeys> slice_keys;
  std::vector<AheadTokens> ahead;    // with either: [depth], from the whole sequences
  KvCache* cache = nullptr;          // what it holds precedes the tokens
  std::vector<AdapterRun> adapters;  // that rows have, of those attached; without gradients
  // Training: routers take jitter and samples, count their choices, and add their balancing losses.
  bool training = false;
  // Factor of the balancing losses in the gradient: the share of this microbatch in the step. Zero
  // in evaluation.
  double auxiliary_loss_scale = 0.0;
  // Training: of this microbatch; what routers draw is a function of it.
  uint64_t random_key = 0;
  std::shared_ptr<const Dropouts> dropout;  // null: nothing is dropped
  // Is told of every unit of parameters that is used, in the forward pass and in the backward pass
  // that belongs to it. Null: all are there.
  std::shared_ptr<UnitUse> units;
};

}  // namespace qianli::nn
