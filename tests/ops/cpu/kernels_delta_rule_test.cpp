#include <cmath>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

struct Shape {
  std::vector<int64_t> starts;
  int64_t key_heads, value_heads, key_dim, value_dim;
  double decay;  // typical size of -g
  bool states;   // initial and final states with gradients

  int64_t rows() const { return starts.back(); }
  int64_t sequences() const { return static_cast<int64_t>(starts.size()) - 1; }
  int64_t keys() const { return rows() * key_heads * key_dim; }
  int64_t values() const { return rows() * value_heads * value_dim; }
  int64_t gates() const { return rows() * value_heads; }
  int64_t state_size() const { return sequences() * value_heads * key_dim * value_dim; }
};

const std::vector<Shape> kShapes = {
    {{0, 0}, 1, 1, 4, 4, 0.1, false},     {{0, 1}, 1, 2, 8, 8, 0.1, true},
    {{0, 64}, 1, 1, 16, 16, 0.1, false},  {{0, 3, 70, 70, 201}, 2, 4, 20, 12, 0.05, true},
    {{0, 130}, 1, 3, 33, 17, 3.0, false}, {{0, 65, 90}, 3, 3, 7, 40, 0.5, true},
};
constexpr double kScale = 0.25, kEps = 1e-6;

// The recurrence token by token, and its adjoint.
struct Reference {
  const Shape& s;
  std::vector<double> q, k, v, g, beta, initial;  // q, k as given
  std::vector<double> out, correction, final_state;
  std::vector<double> grad_q, grad_k, grad_v, grad_g, grad_beta, grad_initial;

  explicit Reference(const Shape& shape) : s(shape) {}

  static double factor(const std::vector<double>& x, int64_t at, int64_t size, double scale) {
    double squares = kEps;
    for (int64_t i = 0; i < size; ++i) squares += x[at + i] * x[at + i];
    return scale / std::sqrt(squares);
  }

  void run(const std::vector<double>& grad_out, const std::vector<double>& grad_final) {
    out.assign(s.values(), 0.0);
    correction = grad_v = out;
    grad_q.assign(s.keys(), 0.0);
    grad_k = grad_q;
    grad_g.assign(s.gates(), 0.0);
    grad_beta = grad_g;
    final_state.assign(s.state_size(), 0.0);
    grad_initial = final_state;
    for (int64_t n = 0; n < s.sequences(); ++n) {
      for (int64_t h = 0; h < s.value_heads; ++h) head(n, h, grad_out, grad_final);
    }
    normalisation(q, grad_q, kScale);
    normalisation(k, grad_k, 1.0);
  }

  void head(int64_t n, int64_t h, const std::vector<double>& grad_out,
            const std::vector<double>& grad_final) {
    const int64_t K = s.key_dim, X = s.value_dim, kh = h / (s.value_heads / s.key_heads);
    const int64_t first = s.starts[n], last = s.starts[n + 1];
    const int64_t state_at = (n * s.value_heads + h) * K * X;
    std::vector<double> state(initial.begin() + state_at, initial.begin() + state_at + K * X);
    std::vector<std::vector<double>> decayed, after;
    for (int64_t t = first; t < last; ++t) {
      const int64_t ka = (t * s.key_heads + kh) * K, va = (t * s.value_heads + h) * X;
      const double fq = factor(q, ka, K, kScale), fk = factor(k, ka, K, 1.0);
      for (double& x : state) x *= std::exp(g[t * s.value_heads + h]);
      decayed.push_back(state);
      for (int64_t j = 0; j < X; ++j) {
        double read = 0.0;
        for (int64_t i = 0; i < K; ++i) read += state[i * X + j] * fk * k[ka + i];
        correction[va + j] = v[va + j] - read;
      }
      for (int64_t i = 0; i < K; ++i) {
        for (int64_t j = 0; j < X; ++j) {
          state[i * X + j] += fk * k[ka + i] * beta[t * s.value_heads + h] * correction[va + j];
          out[va + j] += state[i * X + j] * fq * q[ka + i];
        }
      }
      after.push_back(state);
    }
    std::copy(state.begin(), state.end(), final_state.begin() + state_at);
    std::vector<double> ds(grad_final.begin() + state_at, grad_final.begin() + state_at + K * X);
    for (int64_t t = last - 1; t >= first; --t) {
      const int64_t ka = (t * s.key_heads + kh) * K, va = (t * s.value_heads + h) * X;
      const int64_t ga = t * s.value_heads + h;
      const double fq = factor(q, ka, K, kScale), fk = factor(k, ka, K, 1.0);
      const auto &before = decayed[t - first], &behind = after[t - first];
      std::vector<double> dc(X, 0.0);
      for (int64_t i = 0; i < K; ++i) {
        for (int64_t j = 0; j < X; ++j) {
          ds[i * X + j] += fq * q[ka + i] * grad_out[va + j];
          grad_q[ka + i] += behind[i * X + j] * grad_out[va + j];
          grad_k[ka + i] += beta[ga] * ds[i * X + j] * correction[va + j];
          grad_beta[ga] += fk * k[ka + i] * ds[i * X + j] * correction[va + j];
          dc[j] += beta[ga] * ds[i * X + j] * fk * k[ka + i];
        }
      }
      for (int64_t j = 0; j < X; ++j) grad_v[va + j] = dc[j];
      for (int64_t i = 0; i < K; ++i) {
        for (int64_t j = 0; j < X; ++j) {
          grad_k[ka + i] -= before[i * X + j] * dc[j];
          ds[i * X + j] -= fk * k[ka + i] * dc[j];
          grad_g[ga] += ds[i * X + j] * before[i * X + j];
          ds[i * X + j] *= std::exp(g[ga]);
        }
      }
    }
    std::copy(ds.begin(), ds.end(), grad_initial.begin() + state_at);
  }

  // Gradients of the normalised rows become those of the given ones.
  void normalisation(const std::vector<double>& x, std::vector<double>& grad, double scale) const {
    for (int64_t at = 0; at < s.keys(); at += s.key_dim) {
      const double f = factor(x, at, s.key_dim, scale);
      double along = 0.0;
      for (int64_t i = 0; i < s.key_dim; ++i) along += x[at + i] * grad[at + i];
      for (int64_t i = 0; i < s.key_dim; ++i) {
        grad[at + i] = f * (grad[at + i] - x[at + i] * along * f * f / (scale * scale));
      }
    }
  }
};

std::vector<double> values_of(const Array& array) {
  std::vector<double> values;
  for (int64_t i = 0; i < array.size(); ++i) values.push_back(array[i]);
  return values;
}

void check(const Shape& s, Dtype dtype) {
  SCOPED_TRACE(::testing::Message()
               << s.rows() << " rows, " << s.key_dim << " x " << s.value_dim << ", decay "
               << s.decay << ", dtype " << static_cast<int>(dtype));
  // Inputs lie side by side, as behind a convolution.
  const int64_t width = 2 * s.key_heads * s.key_dim + s.value_heads * s.value_dim;
  Array qkv = random_array(dtype, s.rows() * width, 1);
  Array g = random_array(Dtype::kFloat32, s.gates(), 2);
  Array beta = random_array(Dtype::kFloat32, s.gates(), 3);
  for (int64_t i = 0; i < s.gates(); ++i) {
    g.set(i, -s.decay * std::abs(g[i]));
    beta.set(i, i % 7 == 3 ? 0.0 : 1.0 / (1.0 + std::exp(-beta[i])));
  }
  Array initial = random_array(Dtype::kFloat32, s.state_size(), 4);
  Array grad_out = random_array(dtype, s.values(), 5);
  Array grad_final = random_array(Dtype::kFloat32, s.state_size(), 6);
  Reference want(s);
  const auto columns = [&](int64_t from, int64_t count) {
    std::vector<double> part;
    for (int64_t t = 0; t < s.rows(); ++t) {
      for (int64_t i = 0; i < count; ++i) part.push_back(qkv[t * width + from + i]);
    }
    return part;
  };
  const int64_t key_columns = s.key_heads * s.key_dim;
  want.q = columns(0, key_columns);
  want.k = columns(key_columns, key_columns);
  want.v = columns(2 * key_columns, s.value_heads * s.value_dim);
  want.g = values_of(g);
  want.beta = values_of(beta);
  const std::vector<double> zeros(s.state_size(), 0.0);
  want.initial = s.states ? values_of(initial) : zeros;
  want.run(values_of(grad_out), s.states ? values_of(grad_final) : zeros);

  Array out(dtype, s.values()), correction(Dtype::kFloat32, s.values());
  Array final_state(Dtype::kFloat32, s.state_size());
  const auto floats = [](Array& array) { return static_cast<float*>(array.data()); };
  const auto column = [&](int64_t at) {
    return static_cast<char*>(qkv.data()) + at * (dtype == Dtype::kFloat32 ? 4 : 2);
  };
  const DeltaRuleForward forward{.dtype = dtype,
                                 .sequences = s.sequences(),
                                 .starts = s.starts.data(),
                                 .key_heads = s.key_heads,
                                 .value_heads = s.value_heads,
                                 .key_dim = s.key_dim,
                                 .value_dim = s.value_dim,
                                 .scale = kScale,
                                 .norm_eps = kEps,
                                 .q = column(0),
                                 .k = column(key_columns),
                                 .v = column(2 * key_columns),
                                 .q_stride = width,
                                 .k_stride = width,
                                 .v_stride = width,
                                 .g = floats(g),
                                 .beta = floats(beta),
                                 .initial_state = s.states ? floats(initial) : nullptr,
                                 .final_state = s.states ? floats(final_state) : nullptr,
                                 .out = out.data(),
                                 .correction = floats(correction)};
  cpu_kernels().delta_rule_forward(forward, nullptr);
  expect_close(out, want.out, dtype, 1.0, 4e-6);
  expect_close(correction, want.correction, Dtype::kFloat32, 1.0, 8e-6);
  if (s.states) expect_close(final_state, want.final_state, Dtype::kFloat32, 1.0, 4e-6);

  Array grad_q(dtype, s.keys()), grad_k(dtype, s.keys()), grad_v(dtype, s.values());
  Array grad_g(Dtype::kFloat32, s.gates()), grad_beta(Dtype::kFloat32, s.gates());
  Array grad_initial(Dtype::kFloat32, s.state_size());
  cpu_kernels().delta_rule_backward(
      {.forward = forward,
       .grad_out = grad_out.data(),
       .grad_final_state = s.states ? floats(grad_final) : nullptr,
       .grad_q = grad_q.data(),
       .grad_k = grad_k.data(),
       .grad_v = grad_v.data(),
       .grad_g = floats(grad_g),
       .grad_beta = floats(grad_beta),
       .grad_initial_state = s.states ? floats(grad_initial) : nullptr},
      nullptr);
  // Gradients are sums over the key_dim * value_dim entries of a state and over later tokens.
  const double magnitude = std::sqrt(static_cast<double>(s.key_dim * s.value_dim));
  expect_close(grad_v, want.grad_v, dtype, 4.0, 4e-6);
  expect_close(grad_q, want.grad_q, dtype, magnitude, 4e-6);
  expect_close(grad_k, want.grad_k, dtype, magnitude, 4e-6);
  expect_close(grad_beta, want.grad_beta, Dtype::kFloat32, magnitude, 4e-6);
  expect_close(grad_g, want.grad_g, Dtype::kFloat32, 4.0 * magnitude, 8e-6);
  if (s.states) expect_close(grad_initial, want.grad_initial, Dtype::kFloat32, 4.0, 4e-6);
}

TEST(DeltaRuleKernels, values_and_gradients_match_the_recurrence_in_double_precision) {
  on_every_target([] {
    for (const Shape& shape : kShapes) {
      for (const Dtype dtype : kDtypes) check(shape, dtype);
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
