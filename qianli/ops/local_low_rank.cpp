#include "qianli/ops/local_low_rank.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>

#include "qianli/ops/gemm.h"

namespace qianli::ops {
namespace {

constexpr double kShortest = 1e-12;

void add_change(Parameter& parameter, int64_t first, int64_t count, const at::Tensor& x,
                const at::Tensor& y) {
  const at::Tensor own = parameter.value().narrow(0, first, count);
  parameter.grad_to_add().narrow(0, first, count).add_(oja_change(own, x, y));
}

}  // namespace

at::Tensor oja_change(const at::Tensor& weight, const at::Tensor& x, const at::Tensor& y) {
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor power = y.to(wide).square().mean(0).unsqueeze(1);
  const at::Tensor change = at::mm(y.t(), x).to(wide) - power * weight.to(wide);
  return change / at::linalg_vector_norm(change, 2, at::IntArrayRef{0}, /*keepdim=*/true)
                      .clamp_min(kShortest);
}

at::Tensor locally_adapted_linear(const at::Tensor& x, const Parameter& weight,
                                  const Parameter* bias, const LowRank& adapter) {
  const bool learns = at::GradMode::is_enabled() && is_trained(adapter) && x.size(0) > 0;
  const at::NoGradGuard no_grad;
  const at::Tensor y = gemm_nt(x, weight.value(), bias ? bias->value() : at::Tensor());
  const at::Tensor narrow = gemm_nt(x, adapter.a->value()).mul_(adapter.scale);
  const at::Tensor b = adapter.b->value();
  const int64_t rank = b.size(1);
  int64_t column = 0, row = 0;
  for (const LowRank::Rows& rows : adapter.modules) {
    const at::Tensor z = narrow.narrow(1, column, rank);
    const at::Tensor added = at::mm(z, b.narrow(0, row, rows.count).t());
    y.narrow(1, rows.first, rows.count).add_(added);
    if (learns) {
      add_change(*adapter.a, column, rank, x, z);
      add_change(*adapter.b, row, rows.count, z, added);
    }
    column += rank;
    row += rows.count;
  }
  return y;
}

}  // namespace qianli::ops
