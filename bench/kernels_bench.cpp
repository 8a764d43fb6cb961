// One line per kernel and shape: time and rate; for memory-bound kernels also the rate as a share
// of copying a large array on the same threads.
//
//   kernels_bench [--threads N] [--filter TEXT]
#include <hwy/aligned_allocator.h>
#include <omp.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "qianli/ops/cpu/block_linear.h"
#include "qianli/ops/kernels.h"
#include "recurrent_kernels.h"

namespace {

using namespace qianli::ops;

// With one thread the processor time of the thread, so that other programs on the host count less;
// with several the time that passed.
double now_seconds() {
  timespec time;
  clock_gettime(omp_get_max_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// The fastest of the runs that fit into 0.4 s, at least three: the host may be shared.
double best_seconds(const std::function<void()>& run) {
  double best = 1e30, total = 0.0;
  for (int i = 0; i < 3 || (total < 0.4 && i < 1000); ++i) {
    const double start = now_seconds();
    run();
    const double taken = now_seconds() - start;
    best = std::min(best, taken);
    total += taken;
  }
  return best;
}

std::vector<float> random_floats(int64_t size, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = normal(engine);
  return values;
}

struct AttentionShape {
  int64_t sequences, q_len, k_len, query_heads, key_heads, head_dim;
  int64_t value_dim = 0;  // 0: head_dim
  const char* with = "";  // a switch: cap, slopes, sinks, window, chosen
  bool by_heads = false;  // keys and values lie [heads, rows, dim], as in a cache
  Dtype dtype = Dtype::kFloat32;

  bool has(const char* what) const { return std::strcmp(with, what) == 0; }
};

struct ExpertShape {
  int64_t experts, rows_per_expert, in, out;
};

class Bench {
 public:
  explicit Bench(std::string filter) : filter_(std::move(filter)) {
    const std::vector<float> from(32 << 20, 1.0f);
    std::vector<float> to(from.size());
    const size_t part = from.size() / 64;
    const double seconds = best_seconds([&] {
#pragma omp parallel for schedule(static)
      for (size_t i = 0; i < 64; ++i) {
        std::memcpy(to.data() + i * part, from.data() + i * part, part * sizeof(float));
      }
    });
    copy_rate_ = 8.0 * static_cast<double>(from.size()) / seconds * 1e-9;
    std::printf("copy of 128 MiB: %.1f GB/s, %d threads\n", copy_rate_, omp_get_max_threads());
  }

  void norms() const {
    const int64_t rows = 2048, width = 2048, size = rows * width;
    const auto x = random_floats(size, 1), residual = random_floats(size, 2);
    const auto weight = random_floats(width, 3);
    std::vector<float> y(x.size()), sum(x.size()), grad_weight(weight.size());
    std::vector<float> mean(rows), rstd(rows, 1.0f);
    const NormForward forward{.dtype = Dtype::kFloat32,
                              .rows = rows,
                              .width = width,
                              .eps = 1e-6,
                              .x = x.data(),
                              .residual = residual.data(),
                              .weight = weight.data(),
                              .y = y.data(),
                              .sum = sum.data(),
                              .mean = mean.data(),
                              .rstd = rstd.data()};
    bytes("rms_norm_forward +residual", "2048 x 2048", 16 * size,
          [&] { table_.rms_norm_forward(forward, nullptr); });
    bytes("layer_norm_forward +residual", "2048 x 2048", 16 * size,
          [&] { table_.layer_norm_forward(forward, nullptr); });
    const NormBackward backward{.dtype = Dtype::kFloat32,
                                .rows = rows,
                                .width = width,
                                .grad_y = x.data(),
                                .sum = residual.data(),
                                .weight = weight.data(),
                                .mean = mean.data(),
                                .rstd = rstd.data(),
                                .grad_x = y.data(),
                                .grad_weight = grad_weight.data()};
    bytes("rms_norm_backward", "2048 x 2048", 12 * size,
          [&] { table_.rms_norm_backward(backward, nullptr); });
  }

  void activations(ActivationKind kind, const std::string& name) const {
    const int64_t rows = 2048, width = 1376, size = rows * width;
    const auto x = random_floats(2 * size, 1), grad = random_floats(size, 2);
    std::vector<float> y(grad.size()), grad_x(x.size());
    const ActivationForward forward{.dtype = Dtype::kFloat32,
                                    .kind = kind,
                                    .gated = true,
                                    .rows = rows,
                                    .width = width,
                                    .x = x.data(),
                                    .y = y.data()};
    bytes("gated " + name + " forward", "2048 x 1376", 12 * size,
          [&] { table_.activation_forward(forward, nullptr); });
    const ActivationBackward backward{.dtype = Dtype::kFloat32,
                                      .kind = kind,
                                      .gated = true,
                                      .rows = rows,
                                      .width = width,
                                      .x = x.data(),
                                      .grad_y = grad.data(),
                                      .grad_x = grad_x.data()};
    bytes("gated " + name + " backward", "2048 x 1376", 20 * size,
          [&] { table_.activation_backward(backward, nullptr); });
  }

  void gated_norm() const {
    const int64_t rows = 2048, width = 2048, size = rows * width;
    const auto x = random_floats(size, 1), gate = random_floats(size, 2);
    const auto weight = random_floats(width, 3), grad = random_floats(size, 4);
    std::vector<float> y(x.size()), rstd(rows), grad_x(x.size()), grad_gate(x.size());
    std::vector<float> grad_weight(weight.size());
    const GatedNormForward forward{.dtype = Dtype::kFloat32,
                                   .rows = rows,
                                   .width = width,
                                   .gate_first = true,
                                   .eps = 1e-6,
                                   .x = x.data(),
                                   .gate = gate.data(),
                                   .gate_rows = 1,
                                   .gate_stride = width,
                                   .weight = weight.data(),
                                   .y = y.data(),
                                   .rstd = rstd.data()};
    bytes("gated_norm_forward", "2048 x 2048", 12 * size,
          [&] { table_.gated_norm_forward(forward, nullptr); });
    const GatedNormBackward backward{.forward = forward,
                                     .grad_y = grad.data(),
                                     .grad_x = grad_x.data(),
                                     .grad_gate = grad_gate.data(),
                                     .grad_weight = grad_weight.data()};
    bytes("gated_norm_backward", "2048 x 2048", 20 * size,
          [&] { table_.gated_norm_backward(backward, nullptr); });
  }

  void rotary(bool interleaved) const {
    const int64_t tokens = 2048, heads = 16, head_dim = 64, width = heads * head_dim;
    const auto x = random_floats(tokens * width, 1), angles = random_floats(tokens * head_dim, 2);
    std::vector<float> y(x.size());
    std::vector<int64_t> positions;
    for (int64_t t = 0; t < tokens; ++t) positions.push_back(t);
    const Rotary args{.dtype = Dtype::kFloat32,
                      .tokens = tokens,
                      .heads = heads,
                      .head_dim = head_dim,
                      .rotary_dim = head_dim,
                      .interleaved = interleaved,
                      .x = x.data(),
                      .x_stride = width,
                      .x_head_stride = head_dim,
                      .y = y.data(),
                      .y_stride = width,
                      .cos = angles.data(),
                      .sin = angles.data(),
                      .positions = positions.data(),
                      .inverse = false};
    bytes(interleaved ? "rotary interleaved" : "rotary", "2048 x 16 x 64", 8 * tokens * width,
          [&] { table_.rotary(args, nullptr); });
  }

  // Decoding: a matrix too large for the caches.
  void linear(int64_t rows) const {
    const int64_t in = 1536, out = 32768;
    const std::string shape = std::to_string(rows) + " x 1536, 32768 outputs";
    const auto x = random_floats(rows * in, 1);
    std::vector<float> y(static_cast<size_t>(rows * out));
    const auto measured = [&](const char* name, int64_t size, auto&& body) {
      if (rows == 1) {
        bytes(name, shape, size, body);
      } else {
        line(name, shape, 2.0 * static_cast<double>(rows * in * out), "GF/s", body);
      }
    };
    for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16}) {
      if (rows > kFewRows) break;
      const int64_t size = out * in * (dtype == Dtype::kFloat32 ? 4 : 2);
      const std::vector<uint8_t> weight(static_cast<size_t>(size), 0x3c);
      const char* name = dtype == Dtype::kFloat32 ? "linear fp32" : "linear bf16";
      measured(name, size, [&] {
        table_.linear_few_rows({.dtype = dtype,
                                .rows = rows,
                                .in = in,
                                .out = out,
                                .x = x.data(),
                                .weight = weight.data(),
                                .bias = nullptr,
                                .y = y.data()},
                               nullptr);
      });
    }
    for (const auto code : {cpu::BlockCode::kQ8_0, cpu::BlockCode::kQ4_0}) {
      const auto size = static_cast<int64_t>(cpu::block_matrix_bytes(code, out, in));
      const auto blocks = hwy::AllocateAligned<uint8_t>(static_cast<size_t>(size));
      std::memset(blocks.get(), 0, static_cast<size_t>(size));
      const cpu::BlockLinear call{.dtype = Dtype::kFloat32,
                                  .rows = rows,
                                  .x = x.data(),
                                  .weight = {code, out, in, blocks.get()},
                                  .bias = nullptr,
                                  .y = y.data()};
      const char* name = code == cpu::BlockCode::kQ8_0 ? "linear q8_0" : "linear q4_0";
      measured(name, size, [&] { cpu::block_linear(call); });
    }
  }

  void embedding() const {
    const int64_t tokens = 2048, width = 512, vocabulary = 32000;
    const auto rows = random_floats(vocabulary * width, 1);
    std::vector<float> y(static_cast<size_t>(tokens * width)), grad(rows.size());
    std::vector<int64_t> ids;
    for (int64_t t = 0; t < tokens; ++t) ids.push_back(t * 7919 % vocabulary);
    const EmbeddingForward forward{.dtype = Dtype::kFloat32,
                                   .tokens = tokens,
                                   .width = width,
                                   .ids = ids.data(),
                                   .table = rows.data(),
                                   .y = y.data()};
    bytes("embedding_forward", "2048 of 32000 x 512", 8 * tokens * width,
          [&] { table_.embedding_forward(forward, nullptr); });
    const EmbeddingBackward backward{.dtype = Dtype::kFloat32,
                                     .tokens = tokens,
                                     .width = width,
                                     .vocabulary = vocabulary,
                                     .ids = ids.data(),
                                     .grad_y = y.data(),
                                     .grad_table = grad.data()};
    bytes("embedding_backward", "2048 of 32000 x 512", 12 * tokens * width,
          [&] { table_.embedding_backward(backward, nullptr); });
  }

  void cross_entropy(int64_t rows, int64_t vocabulary, bool keep) const {
    auto logits = random_floats(rows * vocabulary, 1);
    const std::vector<int64_t> labels(static_cast<size_t>(rows), 17);
    const std::vector<float> weights(labels.size(), 0.5f);
    std::vector<float> losses(labels.size());
    const CrossEntropy args{.dtype = Dtype::kFloat32,
                            .rows = rows,
                            .vocabulary = vocabulary,
                            .logits = logits.data(),
                            .labels = labels.data(),
                            .weights = weights.data(),
                            .losses = losses.data(),
                            .keep_logits = keep};
    bytes(keep ? "cross_entropy loss" : "cross_entropy +gradient",
          std::to_string(rows) + " x " + std::to_string(vocabulary),
          (keep ? 4 : 8) * rows * vocabulary, [&] { table_.cross_entropy(args, nullptr); });
  }

  void optimizer() const {
    const int64_t count = 16 << 20;
    auto parameter = random_floats(count, 1), exp_avg = parameter;
    const auto grad = parameter;
    std::vector<float> exp_avg_sq(parameter.size(), 1.0f);
    const AdamW args{.count = count,
                     .parameter = parameter.data(),
                     .grad = grad.data(),
                     .exp_avg = exp_avg.data(),
                     .exp_avg_sq = exp_avg_sq.data(),
                     .bf16_copy = nullptr,
                     .lr = 1e-3,
                     .beta1 = 0.9,
                     .beta2 = 0.95,
                     .eps = 1e-8,
                     .weight_decay = 0.1,
                     .bias_correction1 = 0.5,
                     .bias_correction2 = 0.5,
                     .grad_scale = 1.0};
    bytes("adamw", "16 Mi parameters", 28 * count, [&] { table_.adamw(args, nullptr); });
    double result = 0.0;
    const SquaredNorm norm{.count = count, .x = grad.data(), .result = &result};
    bytes("squared_norm", "16 Mi elements", 4 * count, [&] { table_.squared_norm(norm, nullptr); });
  }

  void grouped_linear(const ExpertShape& s) const {
    const int64_t rows = s.experts * s.rows_per_expert;
    const std::vector<int64_t> counts(static_cast<size_t>(s.experts), s.rows_per_expert);
    const Groups groups{Dtype::kFloat32, s.experts, counts.data(), s.in, s.out};
    const auto x = random_floats(rows * s.in, 1), grad_y = random_floats(rows * s.out, 2);
    const auto weight = random_floats(s.experts * s.in * s.out, 3);
    std::vector<float> y(grad_y.size()), grad_x(x.size()), grad_weight(weight.size());
    const GroupedLinearForward forward{groups, x.data(), weight.data(), nullptr, y.data()};
    const GroupedLinearBackwardInput input{groups, grad_y.data(), weight.data(), grad_x.data()};
    const GroupedLinearBackwardWeight parameter{
        groups, grad_y.data(), x.data(), grad_weight.data(), /*accumulate=*/false, nullptr};
    const std::string shape = std::to_string(s.experts) + " x " +
                              std::to_string(s.rows_per_expert) + ", " + std::to_string(s.in) +
                              " to " + std::to_string(s.out);
    const double flops = 2.0 * static_cast<double>(rows * s.in * s.out);
    line("grouped_linear forward", shape, flops, "GF/s",
         [&] { table_.grouped_linear_forward(forward, nullptr); });
    line("grouped_linear input", shape, flops, "GF/s",
         [&] { table_.grouped_linear_backward_input(input, nullptr); });
    line("grouped_linear weight", shape, flops, "GF/s",
         [&] { table_.grouped_linear_backward_weight(parameter, nullptr); });
  }

  void permute() const {
    const int64_t tokens = 2048, slots = 8, width = 1024, rows = tokens * slots;
    auto x = random_floats(tokens * width, 1), wide = random_floats(rows * width, 2);
    const auto weights = random_floats(rows, 3);
    std::vector<float> grad_x(wide.size()), grad_weights(weights.size());
    std::vector<int64_t> place, token(static_cast<size_t>(rows));
    for (int64_t choice = 0; choice < rows; ++choice) {
      place.push_back(choice * 7919 % rows);
      token[static_cast<size_t>(place.back())] = choice / slots;
    }
    const GatherRows gather{Dtype::kFloat32, rows, width, token.data(), x.data(), wide.data()};
    const CombineRows combine{.dtype = Dtype::kFloat32,
                              .tokens = tokens,
                              .slots = slots,
                              .width = width,
                              .rows = place.data(),
                              .weights = weights.data(),
                              .x = wide.data(),
                              .y = x.data()};
    const CombineRowsBackward backward{combine, x.data(), grad_x.data(), grad_weights.data()};
    const std::string shape = "2048 x 8 x 1024";
    bytes("gather_rows", shape, 8 * rows * width, [&] { table_.gather_rows(gather, nullptr); });
    bytes("combine_rows", shape, 4 * (rows + tokens) * width,
          [&] { table_.combine_rows(combine, nullptr); });
    bytes("combine_rows_backward", shape, 8 * rows * width,
          [&] { table_.combine_rows_backward(backward, nullptr); });
  }

  void attention(const AttentionShape& s) const {
    const int64_t q_rows = s.sequences * s.q_len, k_rows = s.sequences * s.k_len;
    const int64_t value_dim = s.value_dim > 0 ? s.value_dim : s.head_dim;
    const int64_t q_width = s.query_heads * s.head_dim, k_width = s.key_heads * s.head_dim;
    const int64_t v_width = s.key_heads * value_dim, out_width = s.query_heads * value_dim;
    // bfloat16 calls read the halves of these as numbers; only the time counts here.
    const auto q = random_floats(q_rows * q_width, 1), k = random_floats(k_rows * k_width, 2);
    const auto v = random_floats(k_rows * v_width, 3), grad = random_floats(q_rows * out_width, 4);
    const auto slopes = random_floats(s.query_heads, 5), sinks = random_floats(s.query_heads, 6);
    std::vector<float> out(grad.size()), grad_q(q.size()), grad_k(k.size()), grad_v(v.size());
    std::vector<float> lse(static_cast<size_t>(q_rows * s.query_heads));
    std::vector<int64_t> q_starts, k_starts, chosen;
    for (int64_t i = 0; i <= s.sequences; ++i) {
      q_starts.push_back(i * s.q_len);
      k_starts.push_back(i * s.k_len);
    }
    const int64_t chosen_count = s.has("chosen") ? s.k_len / 4 : 0;
    std::vector<int64_t> origins(static_cast<size_t>(s.sequences), 0);
    for (int64_t i = 0; i < q_rows * chosen_count; ++i) chosen.push_back(i * 7919 % s.k_len);
    const AttentionForward forward{.dtype = s.dtype,
                                   .sequences = s.sequences,
                                   .q_starts = q_starts.data(),
                                   .k_starts = k_starts.data(),
                                   .query_heads = s.query_heads,
                                   .key_heads = s.key_heads,
                                   .head_dim = s.head_dim,
                                   .value_dim = value_dim,
                                   .scale = 1.0 / std::sqrt(static_cast<double>(s.head_dim)),
                                   .softcap = s.has("cap") ? 50.0 : 0.0,
                                   .causal = true,
                                   .window = s.has("window") ? s.k_len / 8 : 0,
                                   .slopes = s.has("slopes") ? slopes.data() : nullptr,
                                   .sinks = s.has("sinks") ? sinks.data() : nullptr,
                                   .chosen = chosen_count > 0 ? chosen.data() : nullptr,
                                   .chosen_count = chosen_count,
                                   .dropout = {.key = 1,
                                               .threshold = s.has("dropout") ? 6554U : 0U,
                                               .scale = s.has("dropout") ? 65536.0 / 58982 : 1.0},
                                   .origins = origins.data(),
                                   .q = q.data(),
                                   .k = k.data(),
                                   .v = v.data(),
                                   .q_stride = q_width,
                                   .k_stride = s.by_heads ? s.head_dim : k_width,
                                   .v_stride = s.by_heads ? value_dim : v_width,
                                   .q_head_stride = s.head_dim,
                                   .k_head_stride = s.by_heads ? k_rows * s.head_dim : s.head_dim,
                                   .v_head_stride = s.by_heads ? k_rows * value_dim : value_dim,
                                   .out = out.data(),
                                   .lse = lse.data()};
    const AttentionBackward backward{.forward = forward,
                                     .grad_out = grad.data(),
                                     .grad_q = grad_q.data(),
                                     .grad_k = grad_k.data(),
                                     .grad_v = grad_v.data(),
                                     .grad_q_stride = q_width,
                                     .grad_k_stride = k_width,
                                     .grad_v_stride = v_width};
    const std::string shape =
        "B" + std::to_string(s.sequences) + " H" + std::to_string(s.query_heads) + "/" +
        std::to_string(s.key_heads) + " S" + std::to_string(s.q_len) + "/" +
        std::to_string(s.k_len) + " D" + std::to_string(s.head_dim) +
        (value_dim != s.head_dim ? "/" + std::to_string(value_dim) : std::string()) +
        (s.by_heads ? " by heads" : "") + (s.dtype == Dtype::kBFloat16 ? " bf16" : "");
    const std::string with = *s.with ? std::string(" ") + s.with : "";
    const auto run = [&] { table_.attention_forward(forward, nullptr); };
    const int64_t item = s.dtype == Dtype::kFloat32 ? 4 : 2;
    if (s.q_len == 1) {
      const int64_t read = item * k_rows * (k_width + v_width) / (chosen_count > 0 ? 4 : 1);
      return bytes("attention generation" + with, shape, read, run);
    }
    run();
    // Causal pairs only, masked ones included; the backward pass makes five products of the forward
    // pass's two: three along the head size and two along the value size.
    const double pairs = static_cast<double>(q_rows * s.query_heads * (s.q_len + 1)) / 2.0;
    const double keys = static_cast<double>(s.head_dim), values = static_cast<double>(value_dim);
    line("attention_forward" + with, shape, 2.0 * pairs * (keys + values), "GF/s", run);
    line("attention_backward" + with, shape, 2.0 * pairs * (3.0 * keys + 2.0 * values), "GF/s",
         [&] { table_.attention_backward(backward, nullptr); });
  }

  void recurrent() const {
    qianli::bench::recurrent_kernels(
        [this](const std::string& name, const std::string& shape, double flops,
               const std::function<void()>& run) { line(name, shape, flops, "GF/s", run); });
  }

 private:
  double line(const std::string& name, const std::string& shape, double amount, const char* unit,
              const std::function<void()>& run, const char* end = "\n") const {
    if (name.find(filter_) == std::string::npos) return -1.0;
    const double seconds = best_seconds(run), rate = amount / seconds * 1e-9;
    std::printf("%-28s %-30s float32 %10.3f ms %8.1f %s%s", name.c_str(), shape.c_str(),
                seconds * 1e3, rate, unit, end);
    std::fflush(stdout);
    return rate;
  }

  void bytes(const std::string& name, const std::string& shape, int64_t amount,
             const std::function<void()>& run) const {
    const double rate = line(name, shape, static_cast<double>(amount), "GB/s", run, "");
    if (rate >= 0.0) std::printf("  %.2f of copy\n", rate / copy_rate_);
  }

  const KernelTable& table_ = cpu_kernels();
  std::string filter_;
  double copy_rate_;
};

}  // namespace

int main(int argc, char** argv) {
  std::string filter;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--threads") == 0) omp_set_num_threads(std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--filter") == 0) filter = argv[i + 1];
  }
  const Bench bench(filter);
  bench.norms();
  bench.activations(ActivationKind::kSilu, "silu");
  bench.activations(ActivationKind::kGelu, "gelu");
  bench.activations(ActivationKind::kGeluTanh, "gelu_tanh");
  bench.activations(ActivationKind::kRelu2, "relu2");
  bench.activations(ActivationKind::kClampedSwiglu, "clamped_swiglu");
  for (const bool interleaved : {false, true}) bench.rotary(interleaved);
  bench.gated_norm();
  bench.embedding();
  for (const int64_t rows : {1, 8, 16, 128}) bench.linear(rows);
  for (const bool keep : {true, false}) {
    bench.cross_entropy(512, 32000, keep);
    bench.cross_entropy(128, 150000, keep);
  }
  bench.optimizer();
  bench.grouped_linear({128, 16, 1024, 768});
  bench.grouped_linear({64, 64, 1024, 1024});
  bench.grouped_linear({8, 512, 512, 2752});
  bench.grouped_linear({16, 128, 2048, 1536});
  bench.permute();
  bench.attention({8, 256, 256, 8, 8, 64});
  bench.attention({8, 1024, 1024, 8, 8, 64});
  for (const char* with : {"cap", "slopes", "sinks", "window", "chosen", "dropout"}) {
    bench.attention({8, 1024, 1024, 8, 8, 64, 0, with});
  }
  bench.attention({2, 512, 512, 16, 4, 128});
  bench.attention({1, 1024, 1024, 8, 8, 192, 128});
  for (const bool by_heads : {false, true}) {
    bench.attention({1, 1, 4096, 32, 8, 128, 0, "", by_heads});
    bench.attention({1, 1, 4096, 16, 16, 64, 0, "", by_heads});
    bench.attention({1, 1, 32768, 32, 8, 128, 0, "", by_heads});
    bench.attention({1, 1, 32768, 32, 8, 128, 0, "", by_heads, Dtype::kBFloat16});
  }
  bench.attention({1, 1, 4096, 32, 8, 128, 0, "cap", true});
  bench.attention({1, 1, 16384, 128, 1, 576, 512});
  bench.attention({1, 1, 16384, 128, 1, 576, 512, "chosen"});
  bench.recurrent();
}
