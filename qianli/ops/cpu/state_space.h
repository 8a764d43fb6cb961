// Shapes and working memory of the state-space kernels.
#pragma once

#include <algorithm>

#include "qianli/ops/cpu/chunks.h"

namespace qianli::ops::cpu {

// Into how many parts the heads of a group fall, for enough tasks.
int64_t state_space_parts(const StateSpaceForward& a);

// What a task works with: some heads of one group of one sequence.
struct StateSpaceShape {
  int64_t start, rows;           // of the sequence
  int64_t head_dim, state_size;  // as given
  int64_t head_row, state_row;   // padded to whole vectors
  int64_t group, first_head, heads;
  int64_t chunks;

  // Part `part` of `parts` of a group's heads.
  StateSpaceShape(const StateSpaceForward& a, int64_t sequence, int64_t of_group, int64_t part,
                  int64_t parts)
      : start(a.starts[sequence]),
        rows(a.starts[sequence + 1] - a.starts[sequence]),
        head_dim(a.head_dim),
        state_size(a.state_size),
        head_row(padded(a.head_dim)),
        state_row(padded(a.state_size)),
        group(of_group),
        chunks(num_chunks_of(rows)) {
    const int64_t per_group = a.heads / a.groups;
    const int64_t begin = per_group * part / parts, end = per_group * (part + 1) / parts;
    first_head = group * per_group + begin;
    heads = end - begin;
  }

  int64_t state_floats() const { return state_size * head_row; }
};

struct StateSpaceForwardMemory {
  float* states;  // [heads][state_size][head_row]
  float* b;       // [count][state_row]
  float* c;       // [count][state_row]
  float* b_t;     // [state_size][kChunk]
  float* scores;  // [count][kChunk]: c b^T
  float* mixing;  // [count][kChunk]
  float* x;       // [count][head_row]
  float* scaled;  // [count][head_row]
  float* out;     // [count][head_row]
  float* whole;   // [state_size]

  template <class Memory>
  void take(Memory& memory, const StateSpaceShape& s) {
    states = memory.take(s.heads * s.state_floats());
    b = memory.take(kChunk * s.state_row);
    c = memory.take(kChunk * s.state_row);
    b_t = memory.take(s.state_size * kChunk);
    scores = memory.take(kChunkSquare);
    mixing = memory.take(kChunkSquare);
    x = memory.take(kChunk * s.head_row);
    scaled = memory.take(kChunk * s.head_row);
    out = memory.take(kChunk * s.head_row);
    whole = memory.take(s.state_size);
  }
};

struct StateSpaceBackwardMemory {
  // For the whole sequence, shared by the heads of the task.
  float* b;            // [rows][state_row]
  float* c;            // [rows][state_row]
  float* scores;       // [chunks][count][kChunk]: c b^T
  float* score_grads;  // the same: their gradient, all heads
  // For one head.
  float* states_t;      // [chunks + 1][head_dim][state_row]: before each chunk, transposed
  float* grad_state;    // [state_size][head_row]
  float* grad_state_t;  // [head_dim][state_row]
  // For one head in one chunk.
  float* b_t;           // [state_size][kChunk]
  float* mixing;        // [count][kChunk]: c b^T decay
  float* mixing_grads;  // [count][kChunk]
  float* x;             // [count][head_row]
  float* written;       // [count][head_row]: dt x, what the keys write
  float* written_t;     // [head_dim][kChunk]
  float* grad_out;      // [count][head_row]
  float* grad_written;  // [count][head_row]
  float* scaled;        // [count][head_row]
  float* grad_c;        // [count][state_row]
  float* whole;         // [max(state_size, head_dim)]

  template <class Memory>
  void take(Memory& memory, const StateSpaceShape& s) {
    b = memory.take(s.rows * s.state_row);
    c = memory.take(s.rows * s.state_row);
    scores = memory.take(s.chunks * kChunkSquare);
    score_grads = memory.take(s.chunks * kChunkSquare);
    states_t = memory.take((s.chunks + 1) * s.head_dim * s.state_row);
    grad_state = memory.take(s.state_floats());
    grad_state_t = memory.take(s.head_dim * s.state_row);
    b_t = memory.take(s.state_size * kChunk);
    mixing = memory.take(kChunkSquare);
    mixing_grads = memory.take(kChunkSquare);
    x = memory.take(kChunk * s.head_row);
    written = memory.take(kChunk * s.head_row);
    written_t = memory.take(s.head_dim * kChunk);
    grad_out = memory.take(kChunk * s.head_row);
    grad_written = memory.take(kChunk * s.head_row);
    scaled = memory.take(kChunk * s.head_row);
    grad_c = memory.take(kChunk * s.state_row);
    whole = memory.take(std::max(s.state_size, s.head_dim));
  }
};

}  // namespace qianli::ops::cpu
