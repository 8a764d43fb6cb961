#include <cmath>
#include <limits>

#include "kernels_support.h"

namespace qianli::ops::testing {
namespace {

struct Case {
  int64_t rows, vocabulary;
  double deviation;
  double multiplier = 1.0, softcap = 0.0;
};
constexpr Case kCases[] = {{0, 9, 1.0},
                           {1, 1, 1.0},
                           {3, 7, 2.0},
                           {5, 100, 20.0},
                           {9, 513, 1.0},
                           {3, 4096, 3.0},
                           {2, 4097, 30.0},
                           {2, 9001, 1e-3},
                           {3, 100, 5.0, 0.577},
                           {3, 4099, 2.0, 1.0, 30.0},
                           {9, 513, 3.0, 1.7, 2.0}};

struct Call {
  Array logits, weights, losses;
  std::vector<int64_t> labels;
};

Call make_call(const Case& c, Dtype dtype) {
  Call call{.logits = random_array(dtype, c.rows * c.vocabulary, 1, c.deviation),
            .weights = Array(Dtype::kFloat32, c.rows),
            .losses = Array(Dtype::kFloat32, c.rows),
            .labels = {}};
  for (int64_t row = 0; row < c.rows; ++row) {
    call.weights.set(row, row % 3 == 1 ? 0.0 : 0.25 * static_cast<double>(row + 1));
    call.labels.push_back(row % 3 == 1 ? -100 : (row * 31 + 5) % c.vocabulary);
  }
  return call;
}

void run(const Case& c, Dtype dtype, Call& call, bool keep) {
  cpu_kernels().cross_entropy({.dtype = dtype,
                               .rows = c.rows,
                               .vocabulary = c.vocabulary,
                               .logits = call.logits.data(),
                               .labels = call.labels.data(),
                               .weights = static_cast<const float*>(call.weights.data()),
                               .losses = static_cast<float*>(call.losses.data()),
                               .keep_logits = keep,
                               .multiplier = c.multiplier,
                               .softcap = c.softcap},
                              nullptr);
}

void check(const Case& c, Dtype dtype) {
  SCOPED_TRACE(::testing::Message() << c.rows << " x " << c.vocabulary << " deviation "
                                    << c.deviation << " dtype " << static_cast<int>(dtype));
  Call call = make_call(c, dtype), kept = make_call(c, dtype);
  std::vector<double> losses, gradients, original;
  for (int64_t row = 0; row < c.rows; ++row) {
    const double weight = call.weights[row];
    const auto stored = [&](int64_t i) { return call.logits[row * c.vocabulary + i]; };
    const auto logit = [&](int64_t i) {
      const double z = c.multiplier * stored(i);
      return c.softcap > 0.0 ? c.softcap * std::tanh(z / c.softcap) : z;
    };
    const auto slope = [&](int64_t i) {
      if (c.softcap == 0.0) return c.multiplier;
      const double h = std::cosh(c.multiplier * stored(i) / c.softcap);
      return c.multiplier / (h * h);
    };
    double max = logit(0), sum = 0.0;
    for (int64_t i = 0; i < c.vocabulary; ++i) max = std::max(max, logit(i));
    for (int64_t i = 0; i < c.vocabulary; ++i) sum += std::exp(logit(i) - max);
    const double lse = max + std::log(sum);
    const int64_t label = call.labels[static_cast<size_t>(row)];
    losses.push_back(weight == 0.0 ? 0.0 : lse - logit(label));
    for (int64_t i = 0; i < c.vocabulary; ++i) {
      const double onehot = i == label ? 1.0 : 0.0;
      gradients.push_back(weight == 0.0 ? 0.0
                                        : weight * slope(i) * (std::exp(logit(i) - lse) - onehot));
      original.push_back(stored(i));
    }
  }
  run(c, dtype, call, false);
  run(c, dtype, kept, true);
  // Relative to each probability down to 1e-8, so that gradients of large vocabularies count.
  expect_close(call.logits, gradients, dtype, 1e-8, 5e-6);
  expect_close(call.losses, losses, Dtype::kFloat32, 1.0, 1e-6);
  expect_close(kept.losses, losses, Dtype::kFloat32, 1.0, 1e-6);
  expect_close(kept.logits, original, dtype, 0.0, 0.0);
}

TEST(CrossEntropyKernel, matches_double_precision) {
  on_every_target([] {
    for (const Case& c : kCases) {
      for (const Dtype dtype : kDtypes) check(c, dtype);
    }
  });
}

TEST(CrossEntropyKernel, masked_logits_count_nothing) {
  on_every_target([] {
    const Case c{.rows = 1, .vocabulary = 9000, .deviation = 1.0};
    for (const Dtype dtype : kDtypes) {
      Call call = make_call(c, dtype);
      for (int64_t i = 0; i < c.vocabulary; ++i) {
        call.logits.set(i, i == 5 || i == 8000 ? 2.0 : -std::numeric_limits<double>::infinity());
      }
      run(c, dtype, call, false);
      EXPECT_NEAR(call.losses[0], std::log(2.0), 1e-6);
      EXPECT_NEAR(call.logits[8000], 0.125, 1e-6);
      EXPECT_EQ(call.logits[4500], 0.0);
    }
  });
}

TEST(CrossEntropyKernel, nan_reaches_the_loss) {
  on_every_target([] {
    const Case c{.rows = 1, .vocabulary = 100, .deviation = 1.0};
    for (const int64_t at : {0, 50, 99}) {
      Call call = make_call(c, Dtype::kFloat32);
      call.logits.set(at, std::numeric_limits<double>::quiet_NaN());
      run(c, Dtype::kFloat32, call, false);
      EXPECT_TRUE(std::isnan(call.losses[0])) << "NaN at " << at;
    }
  });
}

}  // namespace
}  // namespace qianli::ops::testing
