#include "qianli/ops/noise.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <array>

#include "qianli/base/random.h"

namespace qianli::ops {
namespace {

constexpr int64_t kWords = 4;  // columns of one call of the generator

void draw_row(uint64_t key, uint64_t origin, int64_t first, int64_t count, double* out) {
  std::array<uint32_t, 4> words{};
  for (int64_t column = first; column < first + count; ++column, ++out) {
    if (column == first || column % kWords == 0)
      words = philox4x32(key, origin, static_cast<uint64_t>(column / kWords));
    // 32 bits: the difference of neighbours is far below what activations resolve.
    *out = static_cast<double>(words[static_cast<size_t>(column % kWords)]) * 0x1p-31 - 1.0;
  }
}

}  // namespace

at::Tensor uniform_noise(uint64_t key, const at::Tensor& origins, int64_t first, int64_t count) {
  const at::Tensor where = origins.cpu().contiguous();
  const int64_t rows = where.size(0);
  const at::Tensor noise = at::empty({rows, count}, at::kDouble);
  const int64_t* origin = where.data_ptr<int64_t>();
  double* out = noise.data_ptr<double>();
  at::parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      draw_row(key, static_cast<uint64_t>(origin[row]), first, count, out + row * count);
  });
  return noise.to(origins.device());
}

}  // namespace qianli::ops
