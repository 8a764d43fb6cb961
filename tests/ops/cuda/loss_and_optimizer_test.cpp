#include <cmath>

#include "tests/ops/cuda/array.h"
#include "tests/ops/cuda/bfloat16.h"

namespace qianli::testing {
namespace {

using CudaCrossEntropy = CudaKernels;

double log_sum_exp(const double* x, int64_t count) {
  double maximum = x[0], sum = 0;
  for (int64_t i = 1; i < count; ++i) maximum = std::max(maximum, x[i]);
  for (int64_t i = 0; i < count; ++i) sum += std::exp(x[i] - maximum);
  return maximum + std::log(sum);
}

TEST_F(CudaCrossEntropy, loss_and_gradient_equal_the_formula) {
  constexpr int64_t kRows = 5;
  for (const Dtype dtype : kDtypes) {
    for (const int64_t vocabulary : {1, 7, 64, 1001, 9000}) {
      for (const std::size_t shift : {0, 3}) {
        for (const bool keep : {false, true}) {
          std::vector<double> numbers = random_numbers(kRows * vocabulary, 1);
          for (double& x : numbers) x *= 5;
          const Array logits(dtype, numbers, shift), losses(Dtype::kFloat32, zeros(kRows));
          // Row 2 has weight 0, and a label that must not be read.
          const Integers labels({0, vocabulary - 1, -100, vocabulary / 2, vocabulary / 3});
          const Array weights(Dtype::kFloat32, {1.0, 0.5, 0.0, 2.0, 0.25});
          std::vector<double> loss(kRows),
              expected = keep ? logits.values() : zeros(kRows * vocabulary);
          for (int64_t r = 0; r < kRows; ++r) {
            if (r == 2) continue;
            const double* row = &logits.values()[r * vocabulary];
            const double lse = log_sum_exp(row, vocabulary);
            const int64_t label = labels.values()[r];
            loss[r] = lse - row[label];
            for (int64_t i = 0; !keep && i < vocabulary; ++i) {
              expected[r * vocabulary + i] =
                  weights.values()[r] * (std::exp(row[i] - lse) - (i == label));
            }
          }
          kernels()->cross_entropy({dtype, kRows, vocabulary, logits.data(), labels.data(),
                                    weights.data<float>(), losses.data<float>(), keep},
                                   stream());
          const std::string what = describe(dtype, kRows, vocabulary) + (keep ? " kept" : "");
          expect_near(losses, loss, kFloatTolerance, what + " loss");
          expect_near(logits, expected, keep ? 0.0 : tolerance(dtype), what + " gradient");
        }
      }
    }
  }
}

TEST_F(CudaCrossEntropy, scales_and_caps_the_logits) {
  constexpr int64_t kRows = 3, kVocabulary = 1003;
  struct Map {
    double multiplier, softcap;
  };
  for (const Dtype dtype : kDtypes) {
    for (const Map& map : {Map{0.577, 0.0}, Map{1.0, 30.0}, Map{1.7, 2.0}}) {
      std::vector<double> numbers = random_numbers(kRows * kVocabulary, 1);
      for (double& x : numbers) x *= 3;
      const Array logits(dtype, numbers), losses(Dtype::kFloat32, zeros(kRows));
      const Integers labels({0, kVocabulary - 1, 17});
      const Array weights(Dtype::kFloat32, {1.0, 0.5, 2.0});
      std::vector<double> loss, expected;
      for (int64_t r = 0; r < kRows; ++r) {
        std::vector<double> z, slope;
        for (int64_t i = 0; i < kVocabulary; ++i) {
          const double scaled = map.multiplier * logits.values()[r * kVocabulary + i];
          const double h = map.softcap > 0 ? std::cosh(scaled / map.softcap) : 1.0;
          z.push_back(map.softcap > 0 ? map.softcap * std::tanh(scaled / map.softcap) : scaled);
          slope.push_back(map.multiplier / (h * h));
        }
        const double lse = log_sum_exp(z.data(), kVocabulary);
        const int64_t label = labels.values()[r];
        loss.push_back(lse - z[label]);
        for (int64_t i = 0; i < kVocabulary; ++i) {
          expected.push_back(weights.values()[r] * slope[i] *
                             (std::exp(z[i] - lse) - (i == label)));
        }
      }
      kernels()->cross_entropy(
          {dtype, kRows, kVocabulary, logits.data(), labels.data(), weights.data<float>(),
           losses.data<float>(), false, map.multiplier, map.softcap},
          stream());
      expect_near(losses, loss, kFloatTolerance, "capped loss");
      expect_near(logits, expected, tolerance(dtype), "capped gradient");
    }
  }
}

TEST_F(CudaCrossEntropy, masked_logits_have_no_share_and_nan_reaches_the_loss) {
  const int64_t vocabulary = 40;
  std::vector<double> numbers(4 * vocabulary, -INFINITY);
  numbers[3] = 1.0, numbers[39] = 1.0;  // two candidates
  numbers[vocabulary + 5] = -2.0;       // one candidate, the label
  for (int64_t i = 0; i < 2 * vocabulary; ++i) numbers[2 * vocabulary + i] = 0.1;
  numbers[2 * vocabulary + 17] = NAN;
  const Array logits(Dtype::kFloat32, numbers), losses(Dtype::kFloat32, zeros(4));
  const Integers labels({3, 5, 0, vocabulary});  // the last lies outside
  const Array weights(Dtype::kFloat32, {1, 1, 1, 1});
  kernels()->cross_entropy({Dtype::kFloat32, 4, vocabulary, logits.data(), labels.data(),
                            weights.data<float>(), losses.data<float>(), false},
                           stream());
  const std::vector<double> loss = losses.read(), gradient = logits.read();
  EXPECT_NEAR(loss[0], std::log(2.0), 1e-6);
  EXPECT_NEAR(loss[1], 0.0, 1e-6);
  EXPECT_TRUE(std::isnan(loss[2]));
  EXPECT_TRUE(std::isnan(loss[3]));
  EXPECT_NEAR(gradient[3], -0.5, 1e-6);
  EXPECT_NEAR(gradient[39], 0.5, 1e-6);
  for (int64_t i = 0; i < vocabulary; ++i) {
    EXPECT_TRUE(i == 3 || i == 39 || gradient[i] == 0.0) << i;
    EXPECT_NEAR(gradient[vocabulary + i], 0.0, 1e-6) << i;
  }
}

using CudaAdamW = CudaKernels;

TEST_F(CudaAdamW, three_steps_equal_the_formula) {
  for (const auto& [count, shift] :
       {std::pair<int64_t, std::size_t>{1, 0}, {4096, 0}, {1003, 0}, {512, 1}}) {
    const Array parameter(Dtype::kFloat32, random_numbers(count, 1), shift),
        grad(Dtype::kFloat32, random_numbers(count, 2), shift);
    const Array m(Dtype::kFloat32, zeros(count), shift), v(Dtype::kFloat32, zeros(count), shift);
    const Array copy(Dtype::kBFloat16, zeros(count), shift);
    std::vector<double> p = parameter.values(), mean(count), square(count);
    const double lr = 1e-2, b1 = 0.9, b2 = 0.95, eps = 1e-8, decay = 0.1, scale = 0.5;
    for (int step = 1; step <= 3; ++step) {
      const double c1 = 1 - std::pow(b1, step), c2 = 1 - std::pow(b2, step);
      for (int64_t i = 0; i < count; ++i) {
        const double g = scale * grad.values()[i];
        mean[i] = b1 * mean[i] + (1 - b1) * g;
        square[i] = b2 * square[i] + (1 - b2) * g * g;
        p[i] = p[i] * (1 - lr * decay) - lr * (mean[i] / c1) / (std::sqrt(square[i] / c2) + eps);
      }
      kernels()->adamw(
          {count, parameter.data<float>(), grad.data<float>(), m.data<float>(), v.data<float>(),
           step == 2 ? nullptr : copy.data(), lr, b1, b2, eps, decay, c1, c2, scale},
          stream());
    }
    const std::string what = "adamw of " + std::to_string(count);
    expect_near(parameter, p, 1e-6, what);
    expect_near(m, mean, 1e-6, what + " exp_avg");
    expect_near(v, square, 1e-6, what + " exp_avg_sq");
    std::vector<double> rounded;
    for (const double x : parameter.read())
      rounded.push_back(from_bfloat16(to_bfloat16(static_cast<float>(x))));
    EXPECT_EQ(copy.read(), rounded) << what;
  }
}

TEST_F(CudaAdamW, a_zero_gradient_only_decays) {
  const Array parameter(Dtype::kFloat32, {1.0, -2.0}), grad(Dtype::kFloat32, zeros(2));
  const Array m(Dtype::kFloat32, zeros(2)), v(Dtype::kFloat32, zeros(2));
  kernels()->adamw({2, parameter.data<float>(), grad.data<float>(), m.data<float>(),
                    v.data<float>(), nullptr, 0.1, 0.9, 0.95, 1e-8, 0.5, 0.1, 0.05, 1.0},
                   stream());
  expect_near(parameter, {0.95, -1.9}, 1e-6, "decay");
}

using CudaSquaredNorm = CudaKernels;

TEST_F(CudaSquaredNorm, equals_the_sum_in_double_and_repeats_bit_for_bit) {
  for (const auto& [count, shift] :
       {std::pair<int64_t, std::size_t>{0, 0}, {1, 0}, {4096, 0}, {70001, 0}, {9000, 1}}) {
    const Array x(Dtype::kFloat32, random_numbers(count, 1), shift);
    double expected = 0;
    for (const double value : x.values()) expected += value * value;
    double results[2];
    for (double& result : results) {
      const double before = NAN;
      const GuardedBytes place(&before, sizeof(before), 0);
      kernels()->squared_norm({count, x.data<float>(), static_cast<double*>(place.data())},
                              stream());
      place.read(&result);
      EXPECT_TRUE(place.guards_intact());
    }
    EXPECT_NEAR(results[0], expected, 1e-12 * expected) << count;
    EXPECT_EQ(results[0], results[1]) << count;
  }
}

using CudaTable = CudaKernels;

TEST_F(CudaTable, empty_calls_start_nothing_and_unknown_dtypes_are_refused) {
  const auto& table = *kernels();
  const int64_t starts[] = {0, 0};
  table.attention_forward({.sequences = 1, .q_starts = starts, .k_starts = starts}, stream());
  table.gated_norm_forward({.rows = 0, .width = 8}, stream());
  table.rms_norm_forward({.rows = 0, .width = 8}, stream());
  table.layer_norm_backward({.rows = 0, .width = 8}, stream());
  table.rotary({.tokens = 0, .heads = 2, .head_dim = 8, .rotary_dim = 8}, stream());
  table.activation_forward({.rows = 0, .width = 8}, stream());
  table.embedding_forward({.tokens = 0, .width = 8}, stream());
  table.embedding_backward({.tokens = 0, .width = 8, .vocabulary = 5}, stream());
  table.cross_entropy({.rows = 0, .vocabulary = 9}, stream());
  table.adamw({.count = 0}, stream());
  EXPECT_THROW(
      table.activation_forward({.dtype = static_cast<Dtype>(7), .rows = 1, .width = 8}, stream()),
      std::invalid_argument);
}

}  // namespace
}  // namespace qianli::testing
