#include <cmath>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

struct Shape {
  std::vector<int64_t> starts;
  int64_t heads, groups, head_dim, state_size;
  double rate;  // typical size of -a
  bool states;  // initial and final states with gradients

  int64_t rows() const { return starts.back(); }
  int64_t sequences() const { return static_cast<int64_t>(starts.size()) - 1; }
  int64_t values() const { return rows() * heads * head_dim; }
  int64_t keys() const { return rows() * groups * state_size; }
  int64_t gates() const { return rows() * heads; }
  int64_t all_states() const { return sequences() * heads * state_size * head_dim; }
};

const std::vector<Shape> kShapes = {
    {{0, 0}, 1, 1, 4, 4, 1.0, false},     {{0, 1}, 2, 1, 8, 8, 1.0, true},
    {{0, 64}, 1, 1, 16, 16, 0.1, false},  {{0, 3, 70, 70, 201}, 6, 2, 12, 20, 0.2, true},
    {{0, 130}, 3, 3, 17, 33, 8.0, false}, {{0, 65, 90}, 5, 1, 40, 7, 1.0, true},
};

// The recurrence token by token, and its adjoint.
struct Reference {
  const Shape& s;
  std::vector<double> x, b, c, dt, a, skip, initial;
  std::vector<double> out, final_state;
  std::vector<double> grad_x, grad_b, grad_c, grad_dt, grad_decay, grad_skip, grad_initial;

  explicit Reference(const Shape& shape) : s(shape) {}

  void run(const std::vector<double>& grad_out, const std::vector<double>& grad_final) {
    out.assign(s.values(), 0.0);
    grad_x = out;
    grad_b.assign(s.keys(), 0.0);
    grad_c = grad_b;
    grad_dt.assign(s.gates(), 0.0);
    grad_decay = grad_skip = grad_dt;
    final_state.assign(s.all_states(), 0.0);
    grad_initial = final_state;
    for (int64_t n = 0; n < s.sequences(); ++n) {
      for (int64_t h = 0; h < s.heads; ++h) head(n, h, grad_out, grad_final);
    }
  }

  void head(int64_t n, int64_t h, const std::vector<double>& grad_out,
            const std::vector<double>& grad_final) {
    const int64_t N = s.state_size, X = s.head_dim, group = h / (s.heads / s.groups);
    const int64_t first = s.starts[n], last = s.starts[n + 1];
    const int64_t at = (n * s.heads + h) * N * X;
    std::vector<double> state(initial.begin() + at, initial.begin() + at + N * X);
    std::vector<std::vector<double>> decayed, after;
    for (int64_t t = first; t < last; ++t) {
      const int64_t ga = t * s.heads + h, xa = ga * X, ba = (t * s.groups + group) * N;
      for (double& value : state) value *= std::exp(dt[ga] * a[h]);
      decayed.push_back(state);
      for (int64_t j = 0; j < X; ++j) out[xa + j] = skip[h] * x[xa + j];
      for (int64_t i = 0; i < N; ++i) {
        for (int64_t j = 0; j < X; ++j) {
          state[i * X + j] += dt[ga] * b[ba + i] * x[xa + j];
          out[xa + j] += state[i * X + j] * c[ba + i];
        }
      }
      after.push_back(state);
    }
    std::copy(state.begin(), state.end(), final_state.begin() + at);
    std::vector<double> ds(grad_final.begin() + at, grad_final.begin() + at + N * X);
    for (int64_t t = last - 1; t >= first; --t) {
      const int64_t ga = t * s.heads + h, xa = ga * X, ba = (t * s.groups + group) * N;
      const auto &before = decayed[t - first], &behind = after[t - first];
      for (int64_t j = 0; j < X; ++j) {
        grad_skip[ga] += x[xa + j] * grad_out[xa + j];
        grad_x[xa + j] += skip[h] * grad_out[xa + j];
      }
      for (int64_t i = 0; i < N; ++i) {
        for (int64_t j = 0; j < X; ++j) {
          double& d = ds[i * X + j];
          d += c[ba + i] * grad_out[xa + j];
          grad_c[ba + i] += behind[i * X + j] * grad_out[xa + j];
          grad_b[ba + i] += dt[ga] * d * x[xa + j];
          grad_x[xa + j] += dt[ga] * d * b[ba + i];
          grad_dt[ga] += b[ba + i] * d * x[xa + j];
          grad_decay[ga] += d * before[i * X + j];
          d *= std::exp(dt[ga] * a[h]);
        }
      }
    }
    std::copy(ds.begin(), ds.end(), grad_initial.begin() + at);
  }
};

std::vector<double> values_of(const Array& array) {
  std::vector<double> values;
  for (int64_t i = 0; i < array.size(); ++i) values.push_back(array[i]);
  return values;
}

void check(const Shape& s, Dtype dtype) {
  SCOPED_TRACE(::testing::Message()
               << s.rows() << " rows, " << s.heads << " heads, " << s.head_dim << " x "
               << s.state_size << ", dtype " << static_cast<int>(dtype));
  // Inputs lie side by side, as behind a convolution.
  const int64_t inner = s.heads * s.head_dim, keys = s.groups * s.state_size;
  const int64_t width = inner + 2 * keys;
  Array xbc = random_array(dtype, s.rows() * width, 1);
  Array dt = random_array(Dtype::kFloat32, s.gates(), 2);
  Array a = random_array(Dtype::kFloat32, s.heads, 3),
        skip = random_array(Dtype::kFloat32, s.heads, 4);
  for (int64_t i = 0; i < s.gates(); ++i) dt.set(i, std::log1p(std::exp(dt[i] - 2.0)));
  for (int64_t h = 0; h < s.heads; ++h) a.set(h, -s.rate * (0.5 + std::abs(a[h])));
  Array initial = random_array(Dtype::kFloat32, s.all_states(), 5);
  Array grad_out = random_array(dtype, s.values(), 6);
  Array grad_final = random_array(Dtype::kFloat32, s.all_states(), 7);
  Reference want(s);
  const auto columns = [&](int64_t from, int64_t count) {
    std::vector<double> part;
    for (int64_t t = 0; t < s.rows(); ++t) {
      for (int64_t i = 0; i < count; ++i) part.push_back(xbc[t * width + from + i]);
    }
    return part;
  };
  want.x = columns(0, inner);
  want.b = columns(inner, keys);
  want.c = columns(inner + keys, keys);
  want.dt = values_of(dt);
  want.a = values_of(a);
  want.skip = values_of(skip);
  const std::vector<double> zeros(s.all_states(), 0.0);
  want.initial = s.states ? values_of(initial) : zeros;
  want.run(values_of(grad_out), s.states ? values_of(grad_final) : zeros);

  Array out(dtype, s.values()), final_state(Dtype::kFloat32, s.all_states());
  const auto floats = [](Array& array) { return static_cast<float*>(array.data()); };
  const auto column = [&](int64_t at) {
    return static_cast<char*>(xbc.data()) + at * (dtype == Dtype::kFloat32 ? 4 : 2);
  };
  const StateSpaceForward forward{.dtype = dtype,
                                  .sequences = s.sequences(),
                                  .starts = s.starts.data(),
                                  .heads = s.heads,
                                  .groups = s.groups,
                                  .head_dim = s.head_dim,
                                  .state_size = s.state_size,
                                  .x = column(0),
                                  .b = column(inner),
                                  .c = column(inner + keys),
                                  .x_stride = width,
                                  .b_stride = width,
                                  .c_stride = width,
                                  .dt = floats(dt),
                                  .a = floats(a),
                                  .skip = floats(skip),
                                  .initial_state = s.states ? floats(initial) : nullptr,
                                  .final_state = s.states ? floats(final_state) : nullptr,
                                  .out = out.data()};
  cpu_kernels().state_space_forward(forward, nullptr);
  // Values and gradients are sums over the entries of a state.
  const double state = std::sqrt(static_cast<double>(s.state_size));
  expect_close(out, want.out, dtype, state, 4e-6);
  if (s.states) expect_close(final_state, want.final_state, Dtype::kFloat32, 1.0, 4e-6);

  Array grad_x(dtype, s.values()), grad_b(dtype, s.keys()), grad_c(dtype, s.keys());
  Array grad_dt(Dtype::kFloat32, s.gates()), grad_decay(Dtype::kFloat32, s.gates());
  Array grad_skip(Dtype::kFloat32, s.gates()), grad_initial(Dtype::kFloat32, s.all_states());
  cpu_kernels().state_space_backward(
      {.forward = forward,
       .grad_out = grad_out.data(),
       .grad_final_state = s.states ? floats(grad_final) : nullptr,
       .grad_x = grad_x.data(),
       .grad_b = grad_b.data(),
       .grad_c = grad_c.data(),
       .grad_dt = floats(grad_dt),
       .grad_decay = floats(grad_decay),
       .grad_skip = floats(grad_skip),
       .grad_initial_state = s.states ? floats(grad_initial) : nullptr},
      nullptr);
  const double both = std::sqrt(static_cast<double>(s.head_dim)) * state;
  const double of_group = both * std::sqrt(static_cast<double>(s.heads / s.groups));
  expect_close(grad_x, want.grad_x, dtype, 2.0 * state, 4e-6);
  expect_close(grad_b, want.grad_b, dtype, of_group, 4e-6);
  expect_close(grad_c, want.grad_c, dtype, of_group, 4e-6);
  expect_close(grad_dt, want.grad_dt, Dtype::kFloat32, 4.0 * both, 4e-6);
  expect_close(grad_decay, want.grad_decay, Dtype::kFloat32, 4.0 * both, 8e-6);
  expect_close(grad_skip, want.grad_skip, Dtype::kFloat32, both, 4e-6);
  if (s.states) expect_close(grad_initial, want.grad_initial, Dtype::kFloat32, 4.0, 4e-6);
}

TEST(StateSpaceKernels, values_and_gradients_match_the_recurrence_in_double_precision) {
  on_every_target([] {
    for (const Shape& shape : kShapes) {
      for (const Dtype dtype : kDtypes) check(shape, dtype);
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
