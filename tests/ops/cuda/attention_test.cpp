#include <algorithm>
#include <cmath>

#include "tests/ops/cuda/array.h"
#include "tests/ops/dropout_mask.h"

namespace qianli::testing {
namespace {

struct Case {
  std::string name;
  std::vector<int64_t> q_starts, k_starts;
  int64_t heads, key_heads, dim, value_dim;
  bool causal = true;
  int64_t window = 0;
  double softcap = 0.0;
  bool slopes = false, sinks = false;
  int64_t chosen = 0;     // keys listed per query, some of them none
  bool by_heads = false;  // k and v lie [heads, rows, dim]
  std::vector<int64_t> offsets = {};
  bool dropout = false;
};

constexpr ops::Dropout kDropout{.key = 0x123456789abcdef, .threshold = 20000, .scale = 1.5};
constexpr int64_t kFirstHead = 6;

std::vector<Case> cases() {
  return {
      {"plain", {0, 5, 17}, {0, 5, 17}, 2, 1, 16, 16},
      {"cached", {0, 2}, {0, 23}, 4, 2, 40, 40},
      {"not causal", {0, 6}, {0, 9}, 2, 2, 8, 8, false},
      {"window", {0, 12}, {0, 15}, 2, 2, 8, 8, true, 4},
      {"latent", {0, 7}, {0, 7}, 3, 1, 72, 70},
      {"wide latent", {0, 2}, {0, 5}, 2, 1, 576, 512},
      {"cap", {0, 9}, {0, 9}, 2, 2, 33, 33, true, 0, 2.0},
      {"slopes", {0, 9}, {0, 12}, 3, 3, 8, 8, true, 0, 0.0, true},
      {"sinks", {0, 9}, {0, 12}, 2, 1, 8, 8, true, 0, 0.0, false, true},
      {"rows without keys", {0, 6}, {0, 2}, 2, 1, 8, 8, true, 0, 0.0, false, true},
      {"chosen", {0, 4, 13}, {0, 4, 50}, 2, 1, 8, 8, true, 0, 0.0, false, false, 7},
      {"everything", {0, 3, 3, 12}, {0, 3, 5, 40}, 4, 2, 20, 12, true, 15, 3.0, true, true, 9},
      {"by heads", {0, 3}, {0, 12}, 4, 2, 20, 12, true, 0, 0.0, false, false, 0, true},
      {.name = "offsets",
       .q_starts = {0, 9, 15, 15, 24, 30},
       .k_starts = {0, 12, 24, 30, 30, 40},
       .heads = 4,
       .key_heads = 2,
       .dim = 20,
       .value_dim = 12,
       .window = 9,
       .slopes = true,
       .offsets = {-4, 11, 0, 3, 2}},
      {.name = "dropout",
       .q_starts = {0, 9, 15, 15, 24, 30},
       .k_starts = {0, 12, 24, 30, 30, 40},
       .heads = 4,
       .key_heads = 2,
       .dim = 20,
       .value_dim = 12,
       .window = 9,
       .sinks = true,
       .offsets = {-4, 11, 0, 3, 2},
       .dropout = true},
      {.name = "dropout, chosen",
       .q_starts = {0, 4, 13},
       .k_starts = {0, 4, 50},
       .heads = 2,
       .key_heads = 1,
       .dim = 8,
       .value_dim = 8,
       .chosen = 7,
       .dropout = true},
  };
}

struct Inputs {
  const Case& c;
  double scale;
  Array q, k, v, grad, slopes, sinks;
  std::vector<int64_t> chosen;

  Inputs(const Case& c, Dtype dtype)
      : c(c),
        scale(1.0 / std::sqrt(static_cast<double>(c.dim))),
        q(dtype, random_numbers(q_rows() * c.heads * c.dim, 1)),
        k(dtype, random_numbers(k_rows() * c.key_heads * c.dim, 2)),
        v(dtype, random_numbers(k_rows() * c.key_heads * c.value_dim, 3)),
        grad(dtype, random_numbers(q_rows() * c.heads * c.value_dim, 4)),
        slopes(Dtype::kFloat32, random_numbers(c.heads, 5)),
        sinks(Dtype::kFloat32, random_numbers(c.heads, 6)) {
    for (int64_t row = 0; row < q_rows(); ++row) {
      for (int64_t i = 0; i < c.chosen; ++i) {
        chosen.push_back(i % 4 == 3 ? -1 - i : (row * 5 + i * 3) % (k_rows() + 4));
      }
    }
  }
  std::vector<int64_t> origins() const {
    std::vector<int64_t> first;
    for (std::size_t s = 0; s + 1 < c.q_starts.size(); ++s)
      first.push_back((static_cast<int64_t>(s + 3) << 32) + 1000 + 13 * static_cast<int64_t>(s));
    return first;
  }
  int64_t q_rows() const { return c.q_starts.back(); }
  int64_t k_rows() const { return c.k_starts.back(); }
  int64_t k_stride() const { return c.by_heads ? c.dim : c.key_heads * c.dim; }
  int64_t v_stride() const { return c.by_heads ? c.value_dim : c.key_heads * c.value_dim; }
  int64_t k_head_stride() const { return c.by_heads ? k_rows() * c.dim : c.dim; }
  int64_t v_head_stride() const { return c.by_heads ? k_rows() * c.value_dim : c.value_dim; }
  double k_at(int64_t row, int64_t head, int64_t d) const {
    return k.values()[row * k_stride() + head * k_head_stride() + d];
  }
  double v_at(int64_t row, int64_t head, int64_t d) const {
    return v.values()[row * v_stride() + head * v_head_stride() + d];
  }
};

struct Expected {
  std::vector<double> out, lse, grad_q, grad_k, grad_v, grad_sinks;
};

bool sees(const Inputs& in, int64_t row, int64_t key, int64_t ahead) {
  if (in.c.causal && ahead > 0) return false;
  if (in.c.window > 0 && ahead <= -in.c.window) return false;
  const auto first = in.chosen.begin() + row * in.c.chosen;
  return in.chosen.empty() || std::find(first, first + in.c.chosen, key) != first + in.c.chosen;
}

double factor_of(const Inputs& in, std::size_t s, int64_t position, int64_t key, int64_t head) {
  if (!in.c.dropout) return 1.0;
  const auto first = static_cast<uint64_t>(in.origins()[s]);
  return stays(kDropout, first + static_cast<uint64_t>(position), (first + key) & 0xffffffff,
               static_cast<uint32_t>(kFirstHead + head))
             ? kDropout.scale
             : 0.0;
}

// One query of one head. `out` may hold what the kernel stored, which its backward pass reads.
void row_of(const Inputs& in, std::size_t s, int64_t i, int64_t head, Expected& e) {
  const Case& c = in.c;
  const int64_t k_start = c.k_starts[s], k_len = c.k_starts[s + 1] - k_start;
  const int64_t row = c.q_starts[s] + i, kv = head / (c.heads / c.key_heads);
  const int64_t position =
      i + (c.offsets.empty() ? k_len - (c.q_starts[s + 1] - c.q_starts[s]) : c.offsets[s]);
  const double* q = &in.q.values()[(row * c.heads + head) * c.dim];
  const double* grad = &in.grad.values()[(row * c.heads + head) * c.value_dim];
  std::vector<int64_t> keys;
  std::vector<double> z, slope;
  double sum = c.sinks ? std::exp(in.sinks.values()[head]) : 0.0;
  for (int64_t j = 0; j < k_len; ++j) {
    if (!sees(in, row, j, j - position)) continue;
    double dot = 0.0;
    for (int64_t d = 0; d < c.dim; ++d) dot += q[d] * in.k_at(k_start + j, kv, d);
    const double t = c.softcap > 0.0 ? std::tanh(in.scale * dot / c.softcap) : 0.0;
    keys.push_back(k_start + j);
    slope.push_back(1.0 - t * t);
    z.push_back((c.softcap > 0.0 ? c.softcap * t : in.scale * dot) +
                (c.slopes ? in.slopes.values()[head] * (j - position) : 0.0));
    sum += std::exp(z.back());
  }
  e.lse[head * in.q_rows() + row] = std::log(sum);
  double delta = 0.0;
  for (int64_t d = 0; d < c.value_dim; ++d) {
    double out = 0.0;
    for (std::size_t n = 0; n < keys.size(); ++n) {
      out += std::exp(z[n]) / sum * factor_of(in, s, position, keys[n] - k_start, head) *
             in.v_at(keys[n], kv, d);
    }
    e.out[(row * c.heads + head) * c.value_dim + d] = out;
    delta += out * grad[d];
  }
  if (c.sinks) e.grad_sinks[head] -= std::exp(in.sinks.values()[head]) / sum * delta;
  for (std::size_t n = 0; n < keys.size(); ++n) {
    double grad_p = 0.0;
    const double p = std::exp(z[n]) / sum;
    const double factor = factor_of(in, s, position, keys[n] - k_start, head);
    for (int64_t d = 0; d < c.value_dim; ++d) {
      grad_p += factor * grad[d] * in.v_at(keys[n], kv, d);
      e.grad_v[(keys[n] * c.key_heads + kv) * c.value_dim + d] += p * factor * grad[d];
    }
    const double ds = in.scale * p * (grad_p - delta) * slope[n];
    for (int64_t d = 0; d < c.dim; ++d) {
      e.grad_q[(row * c.heads + head) * c.dim + d] += ds * in.k_at(keys[n], kv, d);
      e.grad_k[(keys[n] * c.key_heads + kv) * c.dim + d] += ds * q[d];
    }
  }
}

Expected expected_of(const Inputs& in) {
  const Case& c = in.c;
  Expected e{zeros(in.grad.size()), zeros(in.q_rows() * c.heads), zeros(in.q.size()),
             zeros(in.k.size()),    zeros(in.v.size()),           zeros(c.heads)};
  for (std::size_t s = 0; s + 1 < c.q_starts.size(); ++s) {
    for (int64_t i = 0; i < c.q_starts[s + 1] - c.q_starts[s]; ++i) {
      for (int64_t head = 0; head < c.heads; ++head) row_of(in, s, i, head, e);
    }
  }
  for (double& gradient : e.grad_sinks) gradient += 0.5;  // what the kernel adds to
  return e;
}

using CudaAttention = CudaKernels;

TEST_F(CudaAttention, equals_the_formula_with_every_switch) {
  for (const Case& c : cases()) {
    for (const Dtype dtype : kDtypes) {
      const Inputs in(c, dtype);
      const Integers chosen(in.chosen);
      const std::vector<int64_t> origins = in.origins();
      const Expected want = expected_of(in);
      const Array out(dtype, zeros(want.out.size()));
      const Array lse(Dtype::kFloat32, zeros(want.lse.size()));
      const ops::AttentionForward forward{.dtype = dtype,
                                          .sequences = static_cast<int64_t>(c.q_starts.size()) - 1,
                                          .q_starts = c.q_starts.data(),
                                          .k_starts = c.k_starts.data(),
                                          .offsets = c.offsets.empty() ? nullptr : c.offsets.data(),
                                          .query_heads = c.heads,
                                          .key_heads = c.key_heads,
                                          .head_dim = c.dim,
                                          .value_dim = c.value_dim,
                                          .scale = in.scale,
                                          .softcap = c.softcap,
                                          .causal = c.causal,
                                          .window = c.window,
                                          .slopes = c.slopes ? in.slopes.data<float>() : nullptr,
                                          .sinks = c.sinks ? in.sinks.data<float>() : nullptr,
                                          .chosen = in.chosen.empty() ? nullptr : chosen.data(),
                                          .chosen_count = c.chosen,
                                          .dropout = c.dropout ? kDropout : ops::Dropout{},
                                          .origins = c.dropout ? origins.data() : nullptr,
                                          .first_head = kFirstHead,
                                          .q = in.q.data(),
                                          .k = in.k.data(),
                                          .v = in.v.data(),
                                          .q_stride = c.heads * c.dim,
                                          .k_stride = in.k_stride(),
                                          .v_stride = in.v_stride(),
                                          .q_head_stride = c.dim,
                                          .k_head_stride = in.k_head_stride(),
                                          .v_head_stride = in.v_head_stride(),
                                          .out = out.data(),
                                          .lse = lse.data<float>()};
      const std::string what = c.name + (dtype == Dtype::kFloat32 ? " float32" : " bfloat16");
      kernels()->attention_forward(forward, stream());
      expect_near(out, want.out, tolerance(dtype), what + " out");
      const std::vector<double> sums = lse.read();
      for (std::size_t i = 0; i < sums.size(); ++i) {
        if (std::isinf(want.lse[i])) {
          EXPECT_EQ(sums[i], want.lse[i]) << what;
        } else {
          EXPECT_NEAR(sums[i], want.lse[i], 1e-5 * (1.0 + std::abs(want.lse[i]))) << what;
        }
      }
      const Array grad_q(dtype, zeros(want.grad_q.size())),
          grad_k(dtype, zeros(want.grad_k.size()));
      const Array grad_v(dtype, zeros(want.grad_v.size()));
      const Array grad_sinks(Dtype::kFloat32, std::vector<double>(c.heads, 0.5));
      kernels()->attention_backward({.forward = forward,
                                     .grad_out = in.grad.data(),
                                     .grad_q = grad_q.data(),
                                     .grad_k = grad_k.data(),
                                     .grad_v = grad_v.data(),
                                     .grad_q_stride = c.heads * c.dim,
                                     .grad_k_stride = c.key_heads * c.dim,
                                     .grad_v_stride = c.key_heads * c.value_dim,
                                     .grad_sinks = c.sinks ? grad_sinks.data<float>() : nullptr},
                                    stream());
      // Backward reads `out` as it was rounded.
      const double gradient = dtype == Dtype::kFloat32 ? 2e-5 : 1e-2;
      expect_near(grad_q, want.grad_q, gradient, what + " dq");
      expect_near(grad_k, want.grad_k, gradient, what + " dk");
      expect_near(grad_v, want.grad_v, gradient, what + " dv");
      expect_near(grad_sinks, want.grad_sinks, gradient, what + " dsinks");
    }
  }
}

}  // namespace
}  // namespace qianli::testing
