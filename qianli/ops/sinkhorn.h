// Scores of a router balanced over tokens and experts (Sinkhorn and Knopp, 1967), as Megatron-core
// chooses experts with `sinkhorn`: no gradient, [T tokens, E experts].
#pragma once

#include <ATen/core/Tensor.h>

namespace qianli::ops {

// The iteration ends when the factors of the experts move by less than the tolerance, in the mean,
// or after so many rounds: where one factor is large, float32 has no step as small as that, and
// Megatron's loop would have no end.
constexpr double kSinkhornTolerance = 1e-4;
constexpr int kSinkhornRounds = 100;
constexpr double kSinkhornEpsilon = 1e-8;  // beside every sum that divides

// diag(d0) K diag(d1) with K = exp(logits), whose rows have nearly the sum 1/T and whose columns
// 1/E: d0 = 1 / (T (K d1 + eps)), d1 = 1 / (E (K^T d0 + eps)), from ones. float32, float64 for
// float64.
at::Tensor sinkhorn(const at::Tensor& logits);

}  // namespace qianli::ops
