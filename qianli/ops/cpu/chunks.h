// What the recurrent kernels share: a sequence is taken in chunks, inside which the recurrence is a
// few products of small matrices.
#pragma once

#include <cstddef>
#include <cstdint>

#include "qianli/ops/cpu/attention.h"

namespace qianli::ops::cpu {

inline constexpr int64_t kChunk = 64;  // a multiple of every vector length
inline constexpr int64_t kChunkSquare = kChunk * kChunk;

inline int64_t num_chunks_of(int64_t rows) { return divide_up(rows, kChunk); }

// Hands out consecutive pieces of a task's memory; each begins at a multiple of 128 bytes.
class Arena {
 public:
  explicit Arena(float* memory) : next_(memory) {}
  float* take(int64_t floats) {
    float* piece = next_;
    next_ += divide_up(floats, 32) * 32;
    return piece;
  }

 private:
  float* next_;
};

// Adds up what an Arena will be asked for.
class ArenaSize {
 public:
  float* take(int64_t floats) {
    total_ += divide_up(floats, 32) * 32;
    return nullptr;
  }
  int64_t total() const { return total_; }

 private:
  int64_t total_ = 0;
};

// What a task needs: Pieces::take(memory, shape) takes all its arrays.
template <class Pieces, class Shape>
size_t floats_of(const Shape& shape) {
  Pieces pieces;
  ArenaSize size;
  pieces.take(size, shape);
  return static_cast<size_t>(size.total());
}

}  // namespace qianli::ops::cpu
