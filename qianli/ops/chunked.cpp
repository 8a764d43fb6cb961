#include "qianli/ops/chunked.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace qianli::ops::chunked {

Chunks::Chunks(int64_t length)
    : rows(length), size(std::clamp<int64_t>(length, 1, 64)), count((length + size - 1) / size) {}

at::Tensor Chunks::cut(const at::Tensor& x) const {
  std::vector<int64_t> padding(2 * x.dim(), 0);
  padding.back() = count * size - rows;
  return at::constant_pad_nd(x, padding).unflatten(0, {count, size}).movedim(2, 0).contiguous();
}

at::Tensor Chunks::join(const at::Tensor& x) const {
  return x.movedim(0, 2).flatten(0, 1).narrow(0, 0, rows);
}

Decay::Decay(const at::Tensor& exponents) {
  const at::Tensor sums = exponents.cumsum(-1);
  const int64_t size = exponents.size(-1);
  const at::Tensor later =
      at::ones({size, size}, exponents.options().dtype(at::kBool)).triu(/*diagonal=*/1);
  between = (sums.unsqueeze(-1) - sums.unsqueeze(-2))
                .masked_fill(later, -std::numeric_limits<double>::infinity())
                .exp();
  const at::Tensor last = sums.narrow(-1, size - 1, 1);
  from_start = sums.exp().unsqueeze(-1);
  to_end = (last - sums).exp().unsqueeze(-1);
  whole = last.exp().unsqueeze(-1);
}

at::Tensor exponent_gradients(const Passages& passages) {
  // Sums over the columns before t.
  const auto before = [](const at::Tensor& x) {
    return at::constant_pad_nd(x.cumsum(-1), {1, -1});
  };
  const at::Tensor later = passages.from_start.flip({-1}).cumsum(-1).flip({-1});
  return before(passages.crossing).tril().sum(-2) + later + before(passages.to_end) +
         passages.through.unsqueeze(-1);
}

at::Tensor stacked(const std::vector<at::Tensor>& of_chunks) { return at::stack(of_chunks, 1); }

}  // namespace qianli::ops::chunked
