// Shapes and working memory of the gated delta rule's kernels.
#pragma once

#include "qianli/ops/cpu/chunks.h"

namespace qianli::ops::cpu {

// What a task, one key head of one sequence, works with.
struct DeltaRuleShape {
  int64_t start, rows;              // of the sequence
  int64_t key_dim, value_dim;       // as given
  int64_t key_row, value_row;       // padded to whole vectors
  int64_t heads, first_value_head;  // value heads of the key head
  int64_t chunks;

  DeltaRuleShape(const DeltaRuleForward& a, int64_t sequence, int64_t key_head)
      : start(a.starts[sequence]),
        rows(a.starts[sequence + 1] - a.starts[sequence]),
        key_dim(a.key_dim),
        value_dim(a.value_dim),
        key_row(padded(a.key_dim)),
        value_row(padded(a.value_dim)),
        heads(a.value_heads / a.key_heads),
        first_value_head(key_head * heads),
        chunks(num_chunks_of(rows)) {}
};

// Queries and keys of a chunk, normalised: what all value heads share.
struct DeltaRuleKeys {
  float* stacked;  // [2 count][key_row]: queries, then keys
  float* factor;   // [2 count]: what the given rows were multiplied with
  float* keys_t;   // [key_dim][kChunk]
  float* scores;   // [2 count][kChunk]: q k^T, then k k^T, lower parts

  template <class Memory>
  void take(Memory& memory, const DeltaRuleShape& s) {
    stacked = memory.take(2 * kChunk * s.key_row);
    factor = memory.take(2 * kChunk);
    keys_t = memory.take(s.key_dim * kChunk);
    scores = memory.take(2 * kChunkSquare);
  }
};

struct DeltaRuleForwardMemory {
  DeltaRuleKeys keys;
  float* states;       // [heads][key_dim][value_row]
  float* read;         // [2 count][value_row]: what queries, then keys, read from the state
  float* mixing;       // [2 count][kChunk]: weights of the corrections in out and in each other
  float* scaled_keys;  // [count][key_row]
  float* decay;        // [count][kChunk]
  float* whole;        // [key_dim]

  template <class Memory>
  void take(Memory& memory, const DeltaRuleShape& s) {
    keys.take(memory, s);
    states = memory.take(s.heads * s.key_dim * s.value_row);
    read = memory.take(2 * kChunk * s.value_row);
    mixing = memory.take(2 * kChunkSquare);
    scaled_keys = memory.take(kChunk * s.key_row);
    decay = memory.take(kChunkSquare);
    whole = memory.take(s.key_dim);
  }
};

struct DeltaRuleBackwardMemory {
  DeltaRuleKeys keys;
  float* states_t;      // [heads][chunks + 1][value_dim][key_row]: before each chunk, transposed
  float* grad_states;   // [heads][key_dim][value_row]
  float* grad_state_t;  // [value_dim][key_row]
  float* grads;         // [2 count][key_row]: of queries, then keys, all value heads
  float* head_grads;    // the same of one value head
  float* written;       // [count][value_row]: beta c, what the keys write
  float* written_t;     // [value_dim][kChunk]
  float* incoming;      // [2 count][value_row]: gradient of out, then of v
  float* scaled;        // [2 count][value_row]: the same times +-exp(s_i)
  float* mixing;        // [2 count][kChunk]: q k^T decay, then -beta k k^T decay
  float* mixing_grads;  // [2 count][kChunk]
  float* decay;         // [count][kChunk]
  float* whole;         // [max(key_dim, value_dim)]

  template <class Memory>
  void take(Memory& memory, const DeltaRuleShape& s) {
    keys.take(memory, s);
    states_t = memory.take(s.heads * (s.chunks + 1) * s.value_dim * s.key_row);
    grad_states = memory.take(s.heads * s.key_dim * s.value_row);
    grad_state_t = memory.take(s.value_dim * s.key_row);
    grads = memory.take(2 * kChunk * s.key_row);
    head_grads = memory.take(2 * kChunk * s.key_row);
    written = memory.take(kChunk * s.value_row);
    written_t = memory.take(s.value_dim * kChunk);
    incoming = memory.take(2 * kChunk * s.value_row);
    scaled = memory.take(2 * kChunk * s.value_row);
    mixing = memory.take(2 * kChunkSquare);
    mixing_grads = memory.take(2 * kChunkSquare);
    decay = memory.take(kChunkSquare);
    whole = memory.take(std::max(s.key_dim, s.value_dim));
  }
};

}  // namespace qianli::ops::cpu
