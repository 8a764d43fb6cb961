#include "recurrent_kernels.h"

#include <cmath>
#include <random>
#include <vector>

#include "qianli/ops/kernels.h"

namespace qianli::bench {
namespace {

using namespace qianli::ops;

constexpr int64_t kRows = 2048, kSequences = 2, kChunk = 64;
constexpr int64_t kStarts[] = {0, kRows / 2, kRows};

std::vector<float> random_floats(int64_t size, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = normal(engine);
  return values;
}

void causal_conv(const Line& line) {
  const int64_t channels = 4096, kernel = 4, size = kRows * channels;
  const auto x = random_floats(size, 1), grad = random_floats(size, 2);
  const auto weight = random_floats(channels * kernel, 3);
  std::vector<float> y(x.size()), grad_weight(weight.size());
  const CausalConvForward forward{.dtype = Dtype::kFloat32,
                                  .sequences = kSequences,
                                  .starts = kStarts,
                                  .channels = channels,
                                  .kernel = kernel,
                                  .silu = true,
                                  .x = x.data(),
                                  .x_stride = channels,
                                  .weight = weight.data(),
                                  .y = y.data()};
  const double flops = 2.0 * static_cast<double>(size * kernel);
  line("causal_conv_forward silu", "2048 x 4096, kernel 4", flops,
       [&] { cpu_kernels().causal_conv_forward(forward, nullptr); });
  const CausalConvBackward backward{.forward = forward,
                                    .grad_y = grad.data(),
                                    .grad_x = y.data(),
                                    .grad_weight = grad_weight.data()};
  line("causal_conv_backward silu", "2048 x 4096, kernel 4", 3.0 * flops,
       [&] { cpu_kernels().causal_conv_backward(backward, nullptr); });
}

void delta_rule(const Line& line) {
  const int64_t key_heads = 8, heads = 16, dim = 128, keys = key_heads * dim, values = heads * dim;
  const auto q = random_floats(kRows * keys, 1), k = random_floats(kRows * keys, 2);
  const auto v = random_floats(kRows * values, 3), grad = random_floats(kRows * values, 4);
  std::vector<float> g(static_cast<size_t>(kRows * heads), -0.05f), beta(g.size(), 0.5f);
  std::vector<float> out(v.size()), correction(v.size()), grad_q(q.size()), grad_k(q.size());
  std::vector<float> grad_v(v.size()), grad_g(g.size()), grad_beta(g.size());
  const DeltaRuleForward forward{.dtype = Dtype::kFloat32,
                                 .sequences = kSequences,
                                 .starts = kStarts,
                                 .key_heads = key_heads,
                                 .value_heads = heads,
                                 .key_dim = dim,
                                 .value_dim = dim,
                                 .scale = 1.0 / std::sqrt(static_cast<double>(dim)),
                                 .norm_eps = 1e-6,
                                 .q = q.data(),
                                 .k = k.data(),
                                 .v = v.data(),
                                 .q_stride = keys,
                                 .k_stride = keys,
                                 .v_stride = values,
                                 .g = g.data(),
                                 .beta = beta.data(),
                                 .out = out.data(),
                                 .correction = correction.data()};
  // Triangular products count half.
  const auto square = static_cast<double>(dim * dim), chunk = static_cast<double>(kChunk * dim);
  const auto tokens = static_cast<double>(kRows * heads);
  const double scores = chunk;  // q k^T and k k^T serve two value heads
  line("delta_rule_forward", "2 x 1024, heads 8/16, 128",
       tokens * (6 * square + 2 * chunk + scores),
       [&] { cpu_kernels().delta_rule_forward(forward, nullptr); });
  const DeltaRuleBackward backward{.forward = forward,
                                   .grad_out = grad.data(),
                                   .grad_q = grad_q.data(),
                                   .grad_k = grad_k.data(),
                                   .grad_v = grad_v.data(),
                                   .grad_g = grad_g.data(),
                                   .grad_beta = grad_beta.data()};
  line("delta_rule_backward", "2 x 1024, heads 8/16, 128",
       tokens * (14 * square + 8 * chunk + scores),
       [&] { cpu_kernels().delta_rule_backward(backward, nullptr); });
}

void state_space(const Line& line) {
  const int64_t heads = 32, dim = 64, state = 128, width = heads * dim;
  const auto x = random_floats(kRows * width, 1), b = random_floats(kRows * state, 2);
  const auto c = random_floats(kRows * state, 3), grad = random_floats(kRows * width, 4);
  const std::vector<float> dt(static_cast<size_t>(kRows * heads), 0.05f);
  const std::vector<float> a(static_cast<size_t>(heads), -1.0f), skip(a.size(), 1.0f);
  std::vector<float> out(x.size()), grad_x(x.size()), grad_b(b.size()), grad_c(c.size());
  std::vector<float> grad_dt(dt.size()), grad_decay(dt.size()), grad_skip(dt.size());
  const StateSpaceForward forward{.dtype = Dtype::kFloat32,
                                  .sequences = kSequences,
                                  .starts = kStarts,
                                  .heads = heads,
                                  .groups = 1,
                                  .head_dim = dim,
                                  .state_size = state,
                                  .x = x.data(),
                                  .b = b.data(),
                                  .c = c.data(),
                                  .x_stride = width,
                                  .b_stride = state,
                                  .c_stride = state,
                                  .dt = dt.data(),
                                  .a = a.data(),
                                  .skip = skip.data(),
                                  .out = out.data()};
  const auto size = static_cast<double>(state * dim), chunk = static_cast<double>(kChunk * dim);
  const auto tokens = static_cast<double>(kRows * heads);
  line("state_space_forward", "2 x 1024, 32 x 64, state 128", tokens * (4 * size + chunk),
       [&] { cpu_kernels().state_space_forward(forward, nullptr); });
  const StateSpaceBackward backward{.forward = forward,
                                    .grad_out = grad.data(),
                                    .grad_x = grad_x.data(),
                                    .grad_b = grad_b.data(),
                                    .grad_c = grad_c.data(),
                                    .grad_dt = grad_dt.data(),
                                    .grad_decay = grad_decay.data(),
                                    .grad_skip = grad_skip.data()};
  line("state_space_backward", "2 x 1024, 32 x 64, state 128", tokens * (10 * size + 2 * chunk),
       [&] { cpu_kernels().state_space_backward(backward, nullptr); });
}

}  // namespace

void recurrent_kernels(const Line& line) {
  causal_conv(line);
  delta_rule(line);
  state_space(line);
}

}  // namespace qianli::bench
