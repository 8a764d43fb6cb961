// Recurrences in chunks of batched matrix products: what the forms of the recurrent ops that run on
// any device and number type have in common. One sequence at a time; heads first.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qianli::ops::chunked {

// Of a sequence of L rows: n chunks of C rows, the last one filled up with zeros.
struct Chunks {
  explicit Chunks(int64_t length);
  int64_t rows, size, count;

  // [L, H, ...] -> [H, n, C, ...]
  at::Tensor cut(const at::Tensor& x) const;
  // The inverse.
  at::Tensor join(const at::Tensor& x) const;
};

// Decays from exponents [H, n, C], each at most 0. With s_i the sum of exponents up to row i of its
// chunk:
struct Decay {
  explicit Decay(const at::Tensor& exponents);
  at::Tensor between;     // [H, n, C, C]: exp(s_i - s_j) for j <= i, else 0
  at::Tensor from_start;  // [H, n, C, 1]: exp(s_i)
  at::Tensor to_end;      // [H, n, C, 1]: exp(s_last - s_i)
  at::Tensor whole;       // [H, n, 1, 1]: exp(s_last)
};

// Gradients of the exponents [H, n, C]. An exponent acts on everything that passes it on the way
// from an earlier row to a later one. These passages are added up as such, and not by differences
// of what enters and leaves, which would lose float32's digits.
struct Passages {
  at::Tensor crossing;    // [H, n, C, C] from row j to row i, lower triangular
  at::Tensor from_start;  // [H, n, C] from the state before the chunk to row i
  at::Tensor to_end;      // [H, n, C] from row j to the state behind the chunk
  at::Tensor through;     // [H, n] from the state before the chunk to the one behind it
};
at::Tensor exponent_gradients(const Passages& passages);

// [H, n, a, b] of [H, a, b] tensors per chunk.
at::Tensor stacked(const std::vector<at::Tensor>& of_chunks);

}  // namespace qianli::ops::chunked
