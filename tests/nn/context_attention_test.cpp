// Attention over ranks that share the sequences, against ops::attention over whole ones, in float64
// and with the kernels in float32.
#include "qianli/nn/context_attention.h"

#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <mutex>

#include "qianli/dist/rank_threads.h"
#include "qianli/ops/dispatch.h"
#include "qianli/plan/mesh.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

using data::ContextAlgorithm;

struct ContextCase {
  std::string name;
  ContextAlgorithm algorithm = ContextAlgorithm::kRing;
  int64_t size = 2, inner = 1, window = 1;
  std::vector<int64_t> starts = {0, 16};
  int64_t heads = 4, key_heads = 2, dim = 8, value_dim = 8;
  bool causal = true;
  int64_t sliding = 0;  // keys that a query sees
  double softcap = 0.0;
  bool slopes = false, sinks = false;
  data::KeptKeys kept = data::KeptKeys::kNone;

  data::ContextOptions options() const {
    return {.size = size,
            .algorithm = algorithm,
            .inner = inner,
            .window = window,
            .kept = kept,
            .causal = causal};
  }
};

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

// Bytes that a rank sent, forward and in all.
struct Volumes {
  double forward, total;
};

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
  const at::Tensor out = nn::context_attention(q, k, v, layout_of(c),
                                               c.sinks ? sinks.get() : nullptr, deal, heads, ring);
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

// Every algorithm on 2 and 4 ranks.
void check_algorithms(ContextCase c) {
  const std::string name = c.name;
  for (const int64_t size : {2, 4}) {
    for (const auto& [algorithm, word] : {std::pair{ContextAlgorithm::kRing, "ring"},
                                          {ContextAlgorithm::kUlysses, "ulysses"},
                                          {ContextAlgorithm::kHybrid, "hybrid"},
                                          {ContextAlgorithm::kKvAllGather, "all-gather"}}) {
      if (algorithm == ContextAlgorithm::kHybrid && size == 2) continue;
      c.name = name + ", " + word + " of " + std::to_string(size);
      c.algorithm = algorithm;
      c.size = size;
      c.inner = 2;
      check_all(c);
    }
  }
}

TEST(ContextAttention, equals_attention_over_whole_sequences) {
  check_algorithms({.name = "causal"});
  check_algorithms({.name = "general", .causal = false});
  check_algorithms({.name = "long", .starts = {0, 300}, .heads = 4, .key_heads = 4});
}

TEST(ContextAttention, with_values_of_another_size) {
  check_algorithms({.name = "MLA", .heads = 4, .key_heads = 4, .dim = 12, .value_dim = 6});
}

TEST(ContextAttention, with_packed_documents_of_any_length) {
  check_algorithms({.name = "multiples", .starts = {0, 8, 32, 48}});
  check_algorithms({.name = "any lengths", .starts = {0, 1, 4, 21, 21, 47}});
  check_algorithms({.name = "packed, general", .starts = {0, 13, 30}, .causal = false});
}

TEST(ContextAttention, with_windows_caps_slopes_and_sinks) {
  check_algorithms({.name = "window", .starts = {0, 40}, .sliding = 7});
  check_algorithms({.name = "softcap", .softcap = 2.0});
  check_algorithms({.name = "slopes", .slopes = true});
  check_algorithms({.name = "sinks", .starts = {0, 9, 32}, .sinks = true});
  check_algorithms({.name = "everything",
                    .starts = {0, 50, 70},
                    .sliding = 11,
                    .softcap = 3.0,
                    .slopes = true,
                    .sinks = true});
}

TEST(ContextAttention, with_heads_and_lengths_that_do_not_divide) {
  check_all({.name = "uneven Ulysses",
             .algorithm = ContextAlgorithm::kUlysses,
             .size = 4,
             .starts = {0, 37},
             .heads = 6,
             .key_heads = 6});
  check_all({.name = "uneven Ulysses, grouped",
             .algorithm = ContextAlgorithm::kUlysses,
             .size = 4,
             .starts = {0, 37},
             .heads = 6,
             .key_heads = 3});
  check_all({.name = "one key head",
             .algorithm = ContextAlgorithm::kUlysses,
             .size = 3,
             .starts = {0, 10},
             .heads = 8,
             .key_heads = 1,
             .slopes = true});
  check_all({.name = "unaligned ring", .size = 3, .starts = {0, 220}, .causal = false});
}

TEST(ContextAttention, over_a_double_ring) {
  for (const int64_t window : {2, 4}) {
    for (const bool causal : {true, false}) {
      check_all({.name = "double ring of 8 in windows of " + std::to_string(window),
                 .size = 8,
                 .window = window,
                 .starts = {0, 32, 50},
                 .causal = causal});
    }
  }
  for (const int64_t inner : {2, 4}) {
    check_all({.name = "hybrid of 8, " + std::to_string(inner) + " exchange heads",
               .algorithm = ContextAlgorithm::kHybrid,
               .size = 8,
               .inner = inner,
               .window = inner == 2 ? 2 : 1,
               .starts = {0, 64}});
  }
}

TEST(ContextAttention, keys_that_stay_do_not_travel_again) {
  for (const auto algorithm : {ContextAlgorithm::kRing, ContextAlgorithm::kKvAllGather}) {
    ContextCase c{.name = "kept", .algorithm = algorithm, .size = 4, .starts = {0, 32}};
    const double none = check(c, at::kDouble, 1e-10)[1].total;
    c.kept = data::KeptKeys::kKeys;
    const auto half = check(c, at::kDouble, 1e-10)[1];
    c.kept = data::KeptKeys::kAll;
    const auto full = check(c, at::kDouble, 1e-10)[1];
    EXPECT_DOUBLE_EQ(none - half.total, half.forward / 2);
    EXPECT_DOUBLE_EQ(none - full.total, full.forward);
    c.window = algorithm == ContextAlgorithm::kRing ? 2 : 1;
    check_all(c);
  }
}

// Bytes per rank against the closed formulas, T tokens in all.
TEST(ContextAttention, sends_as_much_as_the_formulas_say) {
  constexpr double kBytes = 8, kTokens = 64, kHeads = 8, kKeyHeads = 2, kDim = 8;
  const auto volumes = [](ContextAlgorithm algorithm, int64_t size, int64_t inner, int64_t window) {
    return check({.name = "volume",
                  .algorithm = algorithm,
                  .size = size,
                  .inner = inner,
                  .window = window,
                  .starts = {0, 64},
                  .heads = 8,
                  .key_heads = 2},
                 at::kDouble, 1e-10);
  };
  for (const double c : {2.0, 4.0}) {
    const auto size = static_cast<int64_t>(c);
    const double keys = 2 * kTokens * kKeyHeads * kDim * kBytes;  // of all ranks
    for (const auto& own : volumes(ContextAlgorithm::kRing, size, 1, 1)) {
      EXPECT_DOUBLE_EQ(own.forward, (c - 1) * keys / c);
      EXPECT_DOUBLE_EQ(own.total, own.forward * 2 + c * keys / c);
    }
    for (const auto& own : volumes(ContextAlgorithm::kKvAllGather, size, 1, 1)) {
      EXPECT_DOUBLE_EQ(own.forward, keys * (c - 1) / c);
      EXPECT_DOUBLE_EQ(own.total, 3 * own.forward);
    }
    for (const auto& own : volumes(ContextAlgorithm::kUlysses, size, 1, 1)) {
      const double repeated = std::max(kKeyHeads, c);
      const double elements = kTokens / c * (2 * kHeads + 2 * repeated) * kDim;
      EXPECT_DOUBLE_EQ(own.forward, (c - 1) / c * elements * kBytes);
      EXPECT_DOUBLE_EQ(own.total, 2 * own.forward);
    }
  }
  for (const auto& own : volumes(ContextAlgorithm::kRing, 4, 1, 2))
    EXPECT_DOUBLE_EQ(own.forward, 3 * 2 * kTokens * kKeyHeads * kDim * kBytes / 4);
  for (const auto& own : volumes(ContextAlgorithm::kHybrid, 4, 2, 1)) {
    // Half the heads among two ranks, then half the tokens of one key head go round.
    const double heads = 0.5 * kTokens / 4 * (2 * kHeads + 2 * kKeyHeads) * kDim * kBytes;
    const double ring = 2 * kTokens / 2 * (kKeyHeads / 2) * kDim * kBytes;
    EXPECT_DOUBLE_EQ(own.forward, heads + ring);
    EXPECT_DOUBLE_EQ(own.total, 2 * heads + 2 * ring + 2 * ring);
  }
}

}  // namespace
}  // namespace qianli::testing
