#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kernels_support.h"
#include "tests/ops/dropout_mask.h"

namespace qianli::ops::testing {
namespace {

struct Case {
  const char* what;
  std::vector<int64_t> q_lens, k_lens;
  int64_t query_heads, key_heads, head_dim;
  bool causal;
  int64_t window;
  int64_t gap;            // extra elements between rows of q, k, v and their gradients
  int64_t value_dim = 0;  // 0: head_dim
  double softcap = 0.0;
  bool slopes = false, sinks = false;
  int64_t chosen = 0;     // keys listed per query, some of them none; 0: no list
  bool by_heads = false;  // k and v lie [heads, rows, dim], as in a cache
  bool dropout = false;

  int64_t values() const { return value_dim ? value_dim : head_dim; }
};

constexpr Dropout kDropout{.key = 0x123456789abcdef, .threshold = 20000, .scale = 1.5};
constexpr int64_t kFirstHead = 6;

Case with_dropout(Case c) {
  c.dropout = true;
  return c;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases = {
      {"one element", {1}, {1}, 1, 1, 1, true, 0, 0},
      {"no rows", {0, 0}, {0, 3}, 2, 1, 8, true, 0, 0},
      {"one tile", {64}, {64}, 1, 1, 64, true, 0, 0},
      {"several tiles", {200}, {200}, 2, 2, 64, true, 0, 7},
      {"not causal", {70, 3}, {131, 9}, 2, 1, 32, false, 0, 0},
      {"packed, odd sizes", {5, 0, 130, 67}, {5, 4, 130, 67}, 4, 2, 20, true, 0, 3},
      {"long heads", {90}, {90}, 2, 1, 128, true, 0, 0},
      {"odd heads", {77}, {77}, 3, 1, 33, true, 0, 1},
      {"window", {150, 40}, {150, 40}, 2, 1, 16, true, 37, 0},
      {"window of one", {70}, {70}, 1, 1, 16, true, 1, 0},
      {"window over several blocks", {300}, {300}, 1, 1, 8, true, 130, 0},
      {"cached keys", {3, 17}, {100, 81}, 4, 2, 48, true, 0, 0},
      {"cached keys, window", {3, 17}, {100, 281}, 4, 2, 48, true, 20, 0},
      {"generation, long cache", {1}, {2100}, 6, 2, 64, true, 0, 0},
      {"generation, one head", {1, 1}, {1500, 3}, 1, 1, 80, true, 0, 5},
      {"more queries than keys", {9, 100}, {4, 30}, 2, 2, 24, true, 0, 0},
      {"many heads on one key head", {3}, {40}, 70, 1, 8, true, 0, 0},
      {"short values", {70, 3}, {70, 3}, 2, 2, 24, true, 0, 0, 16},
      {"long values", {70, 3}, {80, 9}, 4, 1, 17, true, 0, 3, 40},
      {"latent, generation", {1}, {700}, 16, 1, 72, true, 0, 0, 64},
      {"cap", {100}, {100}, 2, 1, 32, true, 0, 0, 0, 2.0},
      {"cap, generation", {1, 2}, {300, 5}, 4, 2, 32, true, 0, 0, 0, 2.0},
      {"wide cap, window", {90}, {120}, 2, 2, 16, true, 33, 0, 0, 50.0},
      {"slopes", {100}, {130}, 3, 3, 16, true, 0, 0, 0, 0.0, true},
      {"slopes, generation", {1, 3}, {900, 7}, 6, 2, 16, true, 0, 0, 0, 0.0, true},
      {"slopes, not causal", {70}, {70}, 2, 2, 16, false, 0, 0, 0, 0.0, true},
      {"sinks", {5, 0, 130}, {5, 4, 130}, 4, 2, 16, true, 0, 0, 0, 0.0, false, true},
      {"sinks, window", {90}, {90}, 2, 1, 16, true, 16, 0, 0, 0.0, false, true},
      {"sinks, generation", {1}, {2100}, 8, 2, 16, true, 0, 0, 0, 0.0, false, true},
      {"sinks of rows without keys", {9}, {4}, 2, 2, 8, true, 0, 0, 0, 0.0, false, true},
      {"chosen", {100, 70}, {100, 190}, 2, 2, 16, true, 0, 0, 0, 0.0, false, false, 12},
      {"chosen, generation", {1, 3}, {900, 70}, 4, 1, 16, true, 0, 0, 0, 0.0, false, false, 100},
      {"chosen, many columns", {2}, {500}, 24, 1, 40, true, 0, 0, 32, 0.0, false, false, 90},
      {"chosen, window", {80}, {150}, 2, 1, 8, true, 50, 0, 0, 0.0, false, false, 30},
      {"chosen, slopes", {3}, {150}, 4, 2, 8, true, 0, 0, 0, 0.0, true, false, 30},
      {"everything", {80, 2}, {150, 90}, 4, 2, 20, true, 60, 3, 12, 3.0, true, true, 40},
      {"by heads", {3, 70}, {90, 70}, 4, 2, 20, true, 0, 0, 12, 0.0, false, false, 0, true},
      with_dropout({"dropout", {5, 0, 130, 67}, {5, 4, 130, 167}, 4, 2, 20, true, 0, 3}),
      with_dropout({"dropout, not causal", {70, 3}, {131, 9}, 2, 1, 32, false, 0, 0}),
      with_dropout({"dropout, few queries", {1, 3}, {2100, 70}, 6, 2, 16, true, 0, 0}),
      with_dropout({"dropout of everything",
                    {80, 2},
                    {150, 90},
                    4,
                    2,
                    20,
                    true,
                    60,
                    3,
                    12,
                    3.0,
                    true,
                    true,
                    40}),
  };
  return kCases;
}

// Lists of the keys of each query: visible ones, hidden ones and, at the end, none at all.
std::vector<int64_t> list_keys(const Case& c, const std::vector<int64_t>& q_starts) {
  std::vector<int64_t> keys(static_cast<size_t>(q_starts.back() * c.chosen), -1);
  for (size_t s = 0; s < c.q_lens.size(); ++s) {
    const int64_t count = std::min(c.chosen - 1, c.k_lens[s]);
    for (int64_t row = q_starts[s]; row < q_starts[s + 1]; ++row) {
      int64_t* to = keys.data() + row * c.chosen;
      // Row 1 sees nothing.
      for (int64_t i = 0; row != 1 && i < count; ++i) {
        to[i] = (row * 5 + i * (c.k_lens[s] / count)) % c.k_lens[s];
      }
      to[count] = c.k_lens[s] + 70 * row;
    }
  }
  return keys;
}

struct Inputs {
  const Case& c;
  Dtype dtype;
  std::vector<int64_t> q_starts{0}, k_starts{0};
  int64_t q_stride, k_stride, v_stride, k_head_stride, v_head_stride;
  double scale;
  Array q, k, v, grad_out, slopes, sinks;
  std::vector<int64_t> chosen, origins;

  Inputs(const Case& c, Dtype dtype)
      : c(c),
        dtype(dtype),
        q_stride(c.query_heads * c.head_dim + c.gap),
        k_stride(c.key_heads * c.head_dim + c.gap),
        v_stride(c.key_heads * c.values() + 2 * c.gap),
        k_head_stride(c.head_dim),
        v_head_stride(c.values()),
        scale(1.0 / std::sqrt(static_cast<double>(c.head_dim))),
        q(dtype, 0),
        k(dtype, 0),
        v(dtype, 0),
        grad_out(dtype, 0),
        slopes(random_array(Dtype::kFloat32, c.query_heads, 5, 0.05)),
        sinks(random_array(Dtype::kFloat32, c.query_heads, 6, 2.0)) {
    for (const int64_t n : c.q_lens) q_starts.push_back(q_starts.back() + n);
    for (const int64_t n : c.k_lens) k_starts.push_back(k_starts.back() + n);
    if (c.by_heads) {
      k_stride = c.head_dim;
      v_stride = c.values();
      k_head_stride = k_rows() * k_stride;
      v_head_stride = k_rows() * v_stride;
    }
    q = random_array(dtype, q_rows() * q_stride, 1, 2.0);
    k = random_array(dtype, k_rows() * k_stride * (c.by_heads ? c.key_heads : 1), 2, 1.0);
    v = random_array(dtype, k_rows() * v_stride * (c.by_heads ? c.key_heads : 1), 3);
    grad_out = random_array(dtype, q_rows() * c.query_heads * c.values(), 4);
    if (c.chosen > 0) chosen = list_keys(c, q_starts);
    for (size_t s = 0; s < c.q_lens.size(); ++s)
      origins.push_back((static_cast<int64_t>(s + 3) << 32) + 1000 + 13 * static_cast<int64_t>(s));
  }
  // What dropout multiplies the probability of a query and a key of sequence s by.
  double factor(size_t s, int64_t query, int64_t key, int64_t head) const {
    if (!c.dropout) return 1.0;
    const int64_t position = origins[s] + query + c.k_lens[s] - c.q_lens[s];
    const bool stays = qianli::testing::stays(kDropout, static_cast<uint64_t>(position),
                                              static_cast<uint64_t>(origins[s] + key) & 0xffffffff,
                                              static_cast<uint32_t>(kFirstHead + head));
    return stays ? kDropout.scale : 0.0;
  }
  int64_t q_rows() const { return q_starts.back(); }
  int64_t k_rows() const { return k_starts.back(); }
  int64_t q_at(int64_t row, int64_t head) const { return row * q_stride + head * c.head_dim; }
  int64_t k_at(int64_t row, int64_t head) const { return row * k_stride + head * k_head_stride; }
  int64_t v_at(int64_t row, int64_t head) const { return row * v_stride + head * v_head_stride; }
  int64_t out_at(int64_t row, int64_t head) const {
    return (row * c.query_heads + head) * c.values();
  }
  // Gradients of k and v have their heads side by side, whatever k and v have.
  int64_t grad_k_stride() const { return c.key_heads * c.head_dim + c.gap; }
  int64_t grad_v_stride() const { return c.key_heads * c.values() + 2 * c.gap; }
  bool sees(int64_t row, int64_t key) const {
    if (chosen.empty()) return true;
    const auto first = chosen.begin() + row * c.chosen;
    return std::find(first, first + c.chosen, key) != first + c.chosen;
  }
};

double dot(const Array& a, int64_t a_at, const Array& b, int64_t b_at, int64_t size) {
  double sum = 0.0;
  for (int64_t i = 0; i < size; ++i) sum += a[a_at + i] * b[b_at + i];
  return sum;
}

double stored(double value, Dtype dtype) {
  const auto rounded = static_cast<float>(value);
  return dtype == Dtype::kFloat32 ? rounded : from_bf16(to_bf16(rounded));
}

// Straight from the contract, in double, except that the backward pass reads `out` as stored.
struct Expected {
  std::vector<double> out, lse, grad_q, grad_k, grad_v, grad_sinks;
};

std::vector<double> contents(const Array& array) {
  std::vector<double> values;
  for (int64_t i = 0; i < array.size(); ++i) values.push_back(array[i]);
  return values;
}

void add_row(std::vector<double>& to, int64_t to_at, double factor, const Array& from,
             int64_t from_at, int64_t size) {
  for (int64_t i = 0; i < size; ++i)
    to[static_cast<size_t>(to_at + i)] += factor * from[from_at + i];
}

void reference_row(const Inputs& in, size_t s, int64_t i, int64_t head, Expected& e) {
  const Case& c = in.c;
  const int64_t q_len = c.q_lens[s], k_len = c.k_lens[s], kv = head / (c.query_heads / c.key_heads);
  const int64_t row = in.q_starts[s] + i, first = in.k_starts[s];
  std::vector<int64_t> seen;
  for (int64_t j = 0; j < k_len; ++j) {
    const int64_t ahead = j - i - (k_len - q_len);
    if (c.causal && ahead > 0) continue;
    if (c.window > 0 && ahead <= -c.window) continue;
    if (!in.sees(row, j)) continue;
    seen.push_back(j);
  }
  std::vector<double> p, cap_slope;
  double max = c.sinks ? in.sinks[head] : -std::numeric_limits<double>::infinity(), sum = 0.0;
  for (const int64_t j : seen) {
    double z = in.scale * dot(in.q, in.q_at(row, head), in.k, in.k_at(first + j, kv), c.head_dim);
    const double t = c.softcap > 0.0 ? std::tanh(z / c.softcap) : 0.0;
    if (c.softcap > 0.0) z = c.softcap * t;
    if (c.slopes) z += in.slopes[head] * static_cast<double>(j - i - (k_len - q_len));
    cap_slope.push_back(1.0 - t * t);
    p.push_back(z);
    max = std::max(max, z);
  }
  for (double& value : p) sum += value = std::exp(value - max);
  if (c.sinks) sum += std::exp(in.sinks[head] - max);
  const double lse = max + std::log(sum);
  e.lse[static_cast<size_t>(head * in.q_rows() + row)] = lse;
  const int64_t out_at = in.out_at(row, head);
  for (size_t n = 0; n < seen.size(); ++n) {
    p[n] /= sum;
    add_row(e.out, out_at, p[n] * in.factor(s, i, seen[n], head), in.v,
            in.v_at(first + seen[n], kv), c.values());
  }
  double delta = 0.0;
  for (int64_t d = 0; d < c.values(); ++d) {
    delta += in.grad_out[out_at + d] * stored(e.out[static_cast<size_t>(out_at + d)], in.dtype);
  }
  if (c.sinks) e.grad_sinks[static_cast<size_t>(head)] -= std::exp(in.sinks[head] - lse) * delta;
  for (size_t n = 0; n < seen.size(); ++n) {
    const int64_t key = first + seen[n];
    const double factor = in.factor(s, i, seen[n], head);
    const double grad_p = factor * dot(in.grad_out, out_at, in.v, in.v_at(key, kv), c.values());
    const double grad_s = in.scale * p[n] * (grad_p - delta) * cap_slope[n];
    add_row(e.grad_q, in.q_at(row, head), grad_s, in.k, in.k_at(key, kv), c.head_dim);
    add_row(e.grad_k, key * in.grad_k_stride() + kv * c.head_dim, grad_s, in.q, in.q_at(row, head),
            c.head_dim);
    add_row(e.grad_v, key * in.grad_v_stride() + kv * c.values(), p[n] * factor, in.grad_out,
            out_at, c.values());
  }
}

// Gradients are zero except between the rows, where the kernel must leave `between` alone.
std::vector<double> zero_rows(int64_t rows, int64_t width, int64_t stride, double between) {
  std::vector<double> values;
  for (int64_t i = 0; i < rows * stride; ++i) values.push_back(i % stride < width ? 0.0 : between);
  return values;
}

constexpr double kBetween = -7.25;  // what a fresh Array holds

Expected reference(const Inputs& in) {
  const Case& c = in.c;
  const int64_t q_width = c.query_heads * c.head_dim, k_width = c.key_heads * c.head_dim;
  const int64_t v_width = c.key_heads * c.values();
  Expected e{.out = std::vector<double>(static_cast<size_t>(in.grad_out.size())),
             .lse = std::vector<double>(static_cast<size_t>(in.q_rows() * c.query_heads)),
             .grad_q = zero_rows(in.q_rows(), q_width, in.q_stride, kBetween),
             .grad_k = zero_rows(in.k_rows(), k_width, in.grad_k_stride(), kBetween),
             .grad_v = zero_rows(in.k_rows(), v_width, in.grad_v_stride(), kBetween),
             .grad_sinks = std::vector<double>(static_cast<size_t>(c.query_heads), 0.5)};
  for (size_t s = 0; s < c.q_lens.size(); ++s) {
    for (int64_t i = 0; i < c.q_lens[s]; ++i) {
      for (int64_t head = 0; head < c.query_heads; ++head) reference_row(in, s, i, head, e);
    }
  }
  return e;
}

Array untouched(Dtype dtype, int64_t size) {
  Array array(dtype, size);
  for (int64_t i = 0; i < size; ++i) array.set(i, kBetween);
  return array;
}

void check_lse(const Array& actual, const std::vector<double>& expected) {
  EXPECT_TRUE(actual.guards_untouched());
  for (int64_t i = 0; i < actual.size(); ++i) {
    const double want = expected[static_cast<size_t>(i)];
    if (std::isinf(want)) {
      ASSERT_EQ(actual[i], want) << "row " << i;
    } else {
      ASSERT_NEAR(actual[i], want, 2e-6 * (4.0 + std::abs(want))) << "row " << i;
    }
  }
}

void check(Inputs& in, const Expected& want) {
  const Case& c = in.c;
  Array out(in.dtype, in.grad_out.size()), inference(in.dtype, in.grad_out.size());
  Array lse(Dtype::kFloat32, in.q_rows() * c.query_heads);
  AttentionForward forward{.dtype = in.dtype,
                           .sequences = static_cast<int64_t>(c.q_lens.size()),
                           .q_starts = in.q_starts.data(),
                           .k_starts = in.k_starts.data(),
                           .query_heads = c.query_heads,
                           .key_heads = c.key_heads,
                           .head_dim = c.head_dim,
                           .value_dim = c.values(),
                           .scale = in.scale,
                           .softcap = c.softcap,
                           .causal = c.causal,
                           .window = c.window,
                           .slopes = c.slopes ? static_cast<float*>(in.slopes.data()) : nullptr,
                           .sinks = c.sinks ? static_cast<float*>(in.sinks.data()) : nullptr,
                           .chosen = in.chosen.empty() ? nullptr : in.chosen.data(),
                           .chosen_count = c.chosen,
                           .dropout = c.dropout ? kDropout : Dropout{},
                           .origins = c.dropout ? in.origins.data() : nullptr,
                           .first_head = kFirstHead,
                           .q = in.q.data(),
                           .k = in.k.data(),
                           .v = in.v.data(),
                           .q_stride = in.q_stride,
                           .k_stride = in.k_stride,
                           .v_stride = in.v_stride,
                           .q_head_stride = c.head_dim,
                           .k_head_stride = in.k_head_stride,
                           .v_head_stride = in.v_head_stride,
                           .out = inference.data(),
                           .lse = nullptr};
  cpu_kernels().attention_forward(forward, nullptr);
  forward.out = out.data();
  forward.lse = static_cast<float*>(lse.data());
  cpu_kernels().attention_forward(forward, nullptr);
  expect_close(out, want.out, in.dtype, 2.0);
  expect_close(inference, contents(out), in.dtype, 0.0, 0.0);
  check_lse(lse, want.lse);

  Array grad_q = untouched(in.dtype, in.q.size());
  Array grad_k = untouched(in.dtype, in.k_rows() * in.grad_k_stride());
  Array grad_v = untouched(in.dtype, in.k_rows() * in.grad_v_stride());
  Array grad_sinks(Dtype::kFloat32, c.query_heads);
  for (int64_t h = 0; h < c.query_heads; ++h) grad_sinks.set(h, 0.5);
  cpu_kernels().attention_backward(
      {.forward = forward,
       .grad_out = in.grad_out.data(),
       .grad_q = grad_q.data(),
       .grad_k = grad_k.data(),
       .grad_v = grad_v.data(),
       .grad_q_stride = in.q_stride,
       .grad_k_stride = in.grad_k_stride(),
       .grad_v_stride = in.grad_v_stride(),
       .grad_sinks = c.sinks ? static_cast<float*>(grad_sinks.data()) : nullptr},
      nullptr);
  // Where float32 and double disagree on how `out` rounds to bfloat16, dQ and dK feel it.
  const double tolerance = in.dtype == Dtype::kFloat32 ? 3e-6 : 1e-3;
  expect_close(grad_q, want.grad_q, in.dtype, 3.0, tolerance);
  expect_close(grad_k, want.grad_k, in.dtype, 10.0, tolerance);
  expect_close(grad_v, want.grad_v, in.dtype, 3.0, tolerance);
  expect_close(grad_sinks, want.grad_sinks, Dtype::kFloat32, 10.0, tolerance);
}

class AttentionKernels : public ::testing::TestWithParam<size_t> {};

TEST_P(AttentionKernels, match_double_precision) {
  const Case& c = cases()[GetParam()];
  SCOPED_TRACE(c.what);
  for (const Dtype dtype : kDtypes) {
    Inputs inputs(c, dtype);
    const Expected want = reference(inputs);
    on_every_target([&] { check(inputs, want); });
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, AttentionKernels, ::testing::Range<size_t>(0, cases().size()));

}  // namespace
}  // namespace qianli::ops::testing
