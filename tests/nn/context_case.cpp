#include "tests/nn/context_case.h"

#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <mutex>

#include "qianli/dist/rank_threads.h"
#include "qianli/nn/context_attention.h"
#include "qianli/plan/mesh.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

// Everything of the whole microbatch, made once by the test's thread.
struct Whole {
  at::Tensor q, k, v, cotangent, sinks;
  at::Tensor out, grad_q, grad_k, grad_v, grad_sinks;
};

at::Tensor random(at::IntArrayRef shape, at::ScalarType dtype, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::TensorOptions().dtype(at::kDouble)).to(dtype);
}

ops::AttentionLayout layout_of(const ContextCase& c) {
  return {.q_starts = c.starts,
          .k_starts = c.starts,
          .causal = c.causal,
          .window = c.sliding,
          .scale = 1.0 / std::sqrt(static_cast<double>(c.dim)),
          .softcap = c.softcap,
          .slopes = c.slopes ? ops::alibi_slopes(c.heads) : at::Tensor()};
}

std::unique_ptr<ops::Parameter> sink_parameter(const Whole& whole) {
  auto sinks = std::make_unique<ops::Parameter>("sinks", whole.sinks.clone());
  const bool exact = whole.sinks.scalar_type() == at::kDouble;
  sinks->attach_grad(at::zeros(whole.sinks.sizes(),
                               whole.sinks.options().dtype(exact ? at::kDouble : at::kFloat)));
  sinks->reset_grad();
  return sinks;
}

Whole serial(const ContextCase& c, at::ScalarType dtype) {
  const int64_t tokens = c.starts.back();
  Whole whole{.q = random({tokens, c.heads, c.dim}, dtype, 1),
              .k = random({tokens, c.key_heads, c.dim}, dtype, 2),
              .v = random({tokens, c.key_heads, c.value_dim}, dtype, 3),
              .cotangent = random({tokens, c.heads, c.value_dim}, dtype, 4),
              .sinks = random({c.heads}, dtype, 5)};
  const auto sinks = sink_parameter(whole);
  const at::Tensor q = whole.q.clone().requires_grad_(true),
                   k = whole.k.clone().requires_grad_(true),
                   v = whole.v.clone().requires_grad_(true);
  whole.out = ops::attention(q, k, v, layout_of(c), c.sinks ? sinks.get() : nullptr);
  torch::autograd::backward({whole.out}, {whole.cotangent});
  whole.out = whole.out.detach();
  whole.grad_q = q.grad();
  whole.grad_k = k.grad();
  whole.grad_v = v.grad();
  whole.grad_sinks = sinks->grad().clone();
  return whole;
}

// The rank's part against the whole; sums the gradient of the sinks up.
Volumes check_rank(const ContextCase& c, const Whole& whole, const dist::World& world,
                   double tolerance, at::Tensor& grad_sinks) {
  static std::mutex mutex;
  plan::Ranks all(static_cast<size_t>(c.size));
  for (size_t r = 0; r < all.size(); ++r) all[r] = static_cast<int64_t>(r);
  const auto deal = std::make_shared<const data::ContextDeal>(c.starts, c.options());
  const auto members = plan::context_parts(all, world.rank(), deal->options().heads());
  const dist::Group heads = world.group(members.heads, "heads"),
                    ring = world.group(members.ring, "ring");
  const at::Tensor rows = at::tensor(deal->tokens_of(world.rank()), at::kLong);
  const auto own = [&](const at::Tensor& x) { return x.index_select(0, rows); };
  const at::Tensor q = own(whole.q).requires_grad_(true), k = own(whole.k).requires_grad_(true),
                   v = own(whole.v).requires_grad_(true);
  const auto sinks = sink_parameter(whole);
  const at::Tensor out = nn::context_attention(
      q, k, v, layout_of(c), c.sinks ? sinks.get() : nullptr, deal, c.kept, heads, ring);
  Volumes volumes{heads.traffic().bytes + ring.traffic().bytes, 0};
  torch::autograd::backward({out}, {own(whole.cotangent)});
  volumes.total = heads.traffic().bytes + ring.traffic().bytes;
  const std::lock_guard lock(mutex);  // failures of several threads
  const auto near = [&](const at::Tensor& value, const at::Tensor& expected, const char* name) {
    const double scale = std::max(expected.abs().max().item<double>(), 1e-30);
    ASSERT_EQ(value.sizes(), expected.sizes());
    EXPECT_LE((value - expected).abs().max().item<double>() / scale, tolerance)
        << c.name << ": " << name << " on rank " << world.rank();
  };
  near(out.detach(), own(whole.out), "out");
  near(q.grad(), own(whole.grad_q), "grad q");
  near(k.grad(), own(whole.grad_k), "grad k");
  near(v.grad(), own(whole.grad_v), "grad v");
  if (c.sinks) grad_sinks += sinks->grad();
  return volumes;
}

}  // namespace

std::vector<Volumes> check(const ContextCase& c, at::ScalarType dtype, double tolerance) {
  const Whole whole = serial(c, dtype);
  at::Tensor grad_sinks = at::zeros_like(whole.grad_sinks);
  std::vector<Volumes> volumes(static_cast<size_t>(c.size));
  dist::run_ranks(c.size, [&](const dist::World& world) {
    volumes[static_cast<size_t>(world.rank())] = check_rank(c, whole, world, tolerance, grad_sinks);
  });
  if (c.sinks) {
    const double scale = whole.grad_sinks.abs().max().item<double>();
    EXPECT_LE((grad_sinks - whole.grad_sinks).abs().max().item<double>() / scale, tolerance)
        << c.name << ": grad sinks";
  }
  return volumes;
}

void check_all(const ContextCase& c) {
  check(c, at::kDouble, 1e-10);
  check(c, at::kFloat, 1e-5);
}

}  // namespace qianli::testing
