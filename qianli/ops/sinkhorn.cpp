#include "qianli/ops/sinkhorn.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>

namespace qianli::ops {

at::Tensor sinkhorn(const at::Tensor& logits) {
  const at::NoGradGuard no_grad;
  const at::Tensor wide = logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
  if (wide.numel() == 0) return at::zeros_like(wide);
  const auto tokens = static_cast<double>(wide.size(0)),
             experts = static_cast<double>(wide.size(1));
  // A factor of a row is one of d0: the maximum keeps exp within its range and changes nothing
  // else.
  const at::Tensor kernel = (wide - wide.amax(1, /*keepdim=*/true)).exp();
  const at::Tensor transposed = kernel.t();
  at::Tensor of_tokens, of_experts = at::ones({wide.size(1)}, wide.options());
  for (int round = 0; round < kSinkhornRounds; ++round) {
    const auto balanced = [](const at::Tensor& sums, double count) {
      return ((sums + kSinkhornEpsilon) * count).reciprocal();
    };
    of_tokens = balanced(kernel.mv(of_experts), tokens);
    const at::Tensor next = balanced(transposed.mv(of_tokens), experts);
    const auto moved = (next - of_experts).abs().mean().item<double>();
    of_experts = next;
    if (!(moved > kSinkhornTolerance)) break;  // NaN ends it too
  }
  return kernel * of_tokens.unsqueeze(1) * of_experts;
}

}  // namespace qianli::ops
