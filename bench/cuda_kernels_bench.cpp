// Time and memory rate of each CUDA kernel beside a device copy of the same run, which is the
// ceiling of every kernel here: none of them is bound by arithmetic. Bytes are those that must move
// at least once.
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "qianli/ops/cuda/plugin.h"

namespace {

using namespace qianli::ops;

void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

// Device memory filled with 0x3f bytes: numbers below one in float32 and bfloat16.
class Memory {
 public:
  explicit Memory(int64_t bytes) {
    check(cudaMalloc(&data_, bytes));
    check(cudaMemset(data_, 0x3f, bytes));
  }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  template <class T = void>
  T* as() const {
    return static_cast<T*>(data_);
  }
  void fill(const std::vector<int64_t>& values) {
    check(
        cudaMemcpy(data_, values.data(), values.size() * sizeof(int64_t), cudaMemcpyHostToDevice));
  }

 private:
  void* data_ = nullptr;
};

class Bench {
 public:
  Bench(const KernelTable& table, Stream stream) : table_(table), stream_(stream) {}

  // The median of 20 runs after 3, with the ratio to a copy of 1 GiB measured first.
  void line(const std::string& name, double bytes, const std::function<void()>& call) {
    const double seconds = median(call), rate = bytes / seconds;
    if (copy_rate_ == 0) copy_rate_ = rate;
    std::printf("%-44s %9.1f us %8.1f GB/s %6.2f of copy\n", name.c_str(), seconds * 1e6,
                rate / 1e9, rate / copy_rate_);
  }

  void copy();
  void norms(int64_t rows, int64_t width);
  void rotary(int64_t tokens, int64_t heads, int64_t head_dim);
  void swiglu(int64_t rows, int64_t width);
  void embedding(int64_t tokens, int64_t width, int64_t vocabulary);
  void cross_entropy(int64_t rows, int64_t vocabulary);
  void optimizer(int64_t count);

 private:
  double median(const std::function<void()>& call);

  const KernelTable& table_;
  Stream stream_;
  double copy_rate_ = 0;
};

double Bench::median(const std::function<void()>& call) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int run = 0; run < 23; ++run) {
    check(cudaEventRecord(begin, static_cast<cudaStream_t>(stream_)));
    call();
    check(cudaEventRecord(end, static_cast<cudaStream_t>(stream_)));
    check(cudaEventSynchronize(end));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (run >= 3) times.push_back(milliseconds);
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2] * 1e-3;
}

std::string shape(const char* name, int64_t a, int64_t b) {
  return std::string(name) + " [" + std::to_string(a) + ", " + std::to_string(b) + "] bf16";
}

void Bench::copy() {
  const int64_t bytes = int64_t{1} << 30;
  const Memory from(bytes), to(bytes);
  line("copy of 1 GiB", 2.0 * bytes, [&] {
    check(cudaMemcpyAsync(to.as(), from.as(), bytes, cudaMemcpyDeviceToDevice,
                          static_cast<cudaStream_t>(stream_)));
  });
}

void Bench::norms(int64_t rows, int64_t width) {
  const int64_t size = 2 * rows * width;
  const Memory x(size), residual(size), y(size), sum(size), weight(2 * width), rstd(4 * rows),
      grad(4 * width);
  const NormForward forward{.dtype = Dtype::kBFloat16,
                            .rows = rows,
                            .width = width,
                            .eps = 1e-6,
                            .x = x.as(),
                            .residual = residual.as(),
                            .weight = weight.as(),
                            .y = y.as(),
                            .sum = sum.as(),
                            .rstd = rstd.as<float>()};
  line(shape("rms_norm + residual", rows, width), 4.0 * size,
       [&] { table_.rms_norm_forward(forward, stream_); });
  const NormBackward backward{.dtype = Dtype::kBFloat16,
                              .rows = rows,
                              .width = width,
                              .grad_y = y.as(),
                              .grad_sum = residual.as(),
                              .sum = sum.as(),
                              .weight = weight.as(),
                              .rstd = rstd.as<float>(),
                              .grad_x = x.as(),
                              .grad_weight = grad.as<float>()};
  line(shape("rms_norm backward", rows, width), 4.0 * size,
       [&] { table_.rms_norm_backward(backward, stream_); });
}

void Bench::rotary(int64_t tokens, int64_t heads, int64_t head_dim) {
  const int64_t row = heads * head_dim;
  const Memory x(2 * tokens * row), cosine(2 * tokens * head_dim), sine(2 * tokens * head_dim);
  Memory positions(8 * tokens);
  std::vector<int64_t> places(tokens);
  for (int64_t t = 0; t < tokens; ++t) places[t] = t;
  positions.fill(places);
  const Rotary call{.dtype = Dtype::kBFloat16,
                    .tokens = tokens,
                    .heads = heads,
                    .head_dim = head_dim,
                    .rotary_dim = head_dim,
                    .x = x.as(),
                    .x_stride = row,
                    .x_head_stride = head_dim,
                    .y = x.as(),
                    .y_stride = row,
                    .cos = cosine.as<float>(),
                    .sin = sine.as<float>(),
                    .positions = positions.as<int64_t>()};
  line(shape("rotary in place", tokens, row), 4.0 * tokens * row + 4.0 * tokens * head_dim,
       [&] { table_.rotary(call, stream_); });
}

void Bench::swiglu(int64_t rows, int64_t width) {
  const int64_t size = 2 * rows * width;
  const Memory x(2 * size), y(size), grad_x(2 * size);
  line(shape("swiglu", rows, width), 3.0 * size, [&] {
    table_.activation_forward(
        {Dtype::kBFloat16, ActivationKind::kSilu, true, rows, width, x.as(), y.as()}, stream_);
  });
  line(shape("swiglu backward", rows, width), 5.0 * size, [&] {
    table_.activation_backward(
        {Dtype::kBFloat16, ActivationKind::kSilu, true, rows, width, x.as(), y.as(), grad_x.as()},
        stream_);
  });
}

// One token in eight is the same, as in text.
void Bench::embedding(int64_t tokens, int64_t width, int64_t vocabulary) {
  const int64_t size = 2 * tokens * width;
  const Memory y(size), table(2 * vocabulary * width), grad(4 * vocabulary * width);
  Memory ids(8 * tokens);
  std::vector<int64_t> chosen(tokens);
  uint64_t state = 1;
  for (int64_t& id : chosen) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    id = (state >> 61) == 0 ? 7 : static_cast<int64_t>((state >> 20) % vocabulary);
  }
  ids.fill(chosen);
  line(shape("embedding", tokens, width), 2.0 * size, [&] {
    table_.embedding_forward(
        {Dtype::kBFloat16, tokens, width, ids.as<int64_t>(), table.as(), y.as()}, stream_);
  });
  // Each gradient row is read, each of the (about 7/8 as many) table rows is read and written in
  // float32.
  line(shape("embedding backward", tokens, width), size + 2 * 2.0 * size * 7 / 8, [&] {
    table_.embedding_backward(
        {Dtype::kBFloat16, tokens, width, vocabulary, ids.as<int64_t>(), y.as(), grad.as<float>()},
        stream_);
  });
}

void Bench::cross_entropy(int64_t rows, int64_t vocabulary) {
  const int64_t size = 2 * rows * vocabulary;
  const Memory logits(size), weights(4 * rows), losses(4 * rows);
  Memory labels(8 * rows);
  labels.fill(std::vector<int64_t>(rows, 5));
  line(shape("cross_entropy with gradient", rows, vocabulary), 2.0 * size, [&] {
    table_.cross_entropy({Dtype::kBFloat16, rows, vocabulary, logits.as(), labels.as<int64_t>(),
                          weights.as<float>(), losses.as<float>(), false},
                         stream_);
  });
}

void Bench::optimizer(int64_t count) {
  const Memory p(4 * count), g(4 * count), m(4 * count), v(4 * count), copy(2 * count), result(8);
  const std::string size = std::to_string(count / 1000000) + "M fp32";
  line("adamw with bf16 copy, " + size, 30.0 * count, [&] {
    table_.adamw({count, p.as<float>(), g.as<float>(), m.as<float>(), v.as<float>(), copy.as(),
                  1e-4, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 1.0},
                 stream_);
  });
  line("squared_norm, " + size, 4.0 * count, [&] {
    table_.squared_norm({count, g.as<float>(), result.as<double>()}, stream_);
  });
}

}  // namespace

int main() {
  void* library = dlopen(QIANLI_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    std::printf("LibTorch's CUDA libraries are not complete: %s\n", dlerror());
    return 1;
  }
  const auto count = reinterpret_cast<decltype(&qianli_cuda_device_count)>(
      dlsym(library, "qianli_cuda_device_count"));
  const auto kernels =
      reinterpret_cast<decltype(&qianli_cuda_kernels)>(dlsym(library, "qianli_cuda_kernels"));
  const auto stream = reinterpret_cast<decltype(&qianli_cuda_current_stream)>(
      dlsym(library, "qianli_cuda_current_stream"));
  if (count() == 0) {
    std::printf("no CUDA device\n");
    return 0;
  }
  Bench bench(*kernels(), stream(0));
  bench.copy();
  for (const int64_t width : {1024, 4096, 8192}) bench.norms(16384, width);
  bench.norms(16384 * 32, 128);  // the norms of query and key heads
  bench.rotary(16384, 32, 128);
  bench.swiglu(16384, 11008);
  bench.embedding(16384, 4096, 128256);
  bench.cross_entropy(4096, 128256);
  bench.cross_entropy(4096, 50257);  // rows that start anywhere
  bench.optimizer(int64_t{256} << 20);
  return 0;
}
