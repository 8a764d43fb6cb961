#include <cmath>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

TEST(OptimizerKernels, adamw_matches_double_precision) {
  on_every_target([] {
    for (const int64_t count : {0, 1, 15, 64, 1000, 100003}) {
      SCOPED_TRACE(count);
      Array p = random_array(Dtype::kFloat32, count, 1),
            g = random_array(Dtype::kFloat32, count, 2);
      Array m = random_array(Dtype::kFloat32, count, 3),
            v = random_array(Dtype::kFloat32, count, 4);
      Array copy(Dtype::kBFloat16, count);
      for (int64_t i = 0; i < count; ++i) v.set(i, v[i] * v[i]);
      const double lr = 1e-2, b1 = 0.9, b2 = 0.95, eps = 1e-8, wd = 0.1, scale = 0.5;
      const double c1 = 1.0 - std::pow(b1, 7), c2 = 1.0 - std::pow(b2, 7);
      std::vector<double> want_p, want_m, want_v;
      for (int64_t i = 0; i < count; ++i) {
        const double gi = scale * g[i];
        want_m.push_back(b1 * m[i] + (1 - b1) * gi);
        want_v.push_back(b2 * v[i] + (1 - b2) * gi * gi);
        want_p.push_back(p[i] * (1 - lr * wd) -
                         lr / c1 * want_m.back() /
                             (std::sqrt(want_v.back()) / std::sqrt(c2) + eps));
      }
      cpu_kernels().adamw({.count = count,
                           .parameter = static_cast<float*>(p.data()),
                           .grad = static_cast<const float*>(g.data()),
                           .exp_avg = static_cast<float*>(m.data()),
                           .exp_avg_sq = static_cast<float*>(v.data()),
                           .bf16_copy = copy.data(),
                           .lr = lr,
                           .beta1 = b1,
                           .beta2 = b2,
                           .eps = eps,
                           .weight_decay = wd,
                           .bias_correction1 = c1,
                           .bias_correction2 = c2,
                           .grad_scale = scale},
                          nullptr);
      expect_close(p, want_p, Dtype::kFloat32, 1.0, 3e-7);
      expect_close(m, want_m, Dtype::kFloat32, 1.0, 3e-7);
      expect_close(v, want_v, Dtype::kFloat32, 0.0, 3e-7);
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(copy[i], from_bf16(to_bf16(static_cast<float>(p[i])))) << "element " << i;
      }
      EXPECT_TRUE(copy.guards_untouched());
    }
  });
}

TEST(OptimizerKernels, squared_norm_is_exact_to_double_rounding_and_independent_of_threads) {
  for (const int64_t count : {0, 1, 37, 65536, 300001}) {
    Array x = random_array(Dtype::kFloat32, count, 1, 100.0);
    double want = 0.0;
    for (int64_t i = 0; i < count; ++i) want += x[i] * x[i];
    on_every_target([&] {
      double result = -1.0, again = -1.0;
      SquaredNorm args{.count = count, .x = static_cast<const float*>(x.data()), .result = &result};
      cpu_kernels().squared_norm(args, nullptr);
      EXPECT_NEAR(result, want, 1e-12 * want);
      args.result = &again;
      cpu_kernels().squared_norm(args, nullptr);
      EXPECT_EQ(result, again);
    });
  }
}

}  // namespace
}  // namespace qianli::ops::testing
