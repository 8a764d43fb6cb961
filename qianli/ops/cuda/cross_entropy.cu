// Softmax cross entropy on one chunk of logits: a block per row, maximum and sum in one pass, the
// gradient over the logits in a second.
#include <cmath>
#include <limits>

#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/pack.cuh"
#include "qianli/ops/cuda/reduce.cuh"
#include "qianli/ops/cuda/table.h"

namespace qianli::ops::cuda {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();

// Rows of a vocabulary like 50257 start anywhere: the elements up to the first 16-byte border and
// after the last one go one by one, the rest in packs. Calls f(pointer, index, size) for this
// thread's share.
template <class T, class F>
__device__ void for_each_in_row(T* row, int64_t count, F f) {
  constexpr int kSize = kPackSize<T>;
  const int64_t offset = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
  int64_t head = offset == 0 ? 0 : kSize - offset;
  if (head > count) head = count;
  const int64_t body_end = head + (count - head) / kSize * kSize;
  for (int64_t i = threadIdx.x; i < head; i += blockDim.x) {
    f(i, std::integral_constant<int, 1>());
  }
  for (int64_t i = head + threadIdx.x * kSize; i < body_end; i += blockDim.x * kSize) {
    f(i, std::integral_constant<int, kSize>());
  }
  for (int64_t i = body_end + threadIdx.x; i < count; i += blockDim.x) {
    f(i, std::integral_constant<int, 1>());
  }
}

// From the stored x to the logit z that enters the softmax; both grow together.
struct LogitMap {
  float multiplier, softcap;  // softcap 0: none

  __device__ explicit LogitMap(const CrossEntropy& call)
      : multiplier(static_cast<float>(call.multiplier)),
        softcap(static_cast<float>(call.softcap)) {}
  __device__ float logit(float x) const {
    const float z = multiplier * x;
    return softcap > 0.0f ? softcap * tanhf(z / softcap) : z;
  }
  __device__ float slope(float x) const {
    if (softcap == 0.0f) return multiplier;
    // 1 - tanh^2 u without the difference: 4 e / (1 + e)^2 with e = exp(-2 |u|).
    const float e = expf(-2.0f * fabsf(multiplier * x / softcap));
    return multiplier * 4.0f * e / ((1.0f + e) * (1.0f + e));
  }
};

template <class T>
__global__ void cross_entropy_kernel(CrossEntropy call) {
  const LogitMap map(call);
  const int64_t row = blockIdx.x;
  T* logits = static_cast<T*>(call.logits) + row * call.vocabulary;
  const float weight = call.weights[row];
  if (weight == 0.0f) {
    if (threadIdx.x == 0) call.losses[row] = 0.0f;
    if (call.keep_logits) return;
    for_each_in_row(logits, call.vocabulary, [&](int64_t i, auto size) {
      const float zeros[decltype(size)::value] = {};
      store(logits + i, zeros);
    });
    return;
  }

  // Running maximum, and the sum of exp(x - maximum). The finite start keeps rows with -inf entries
  // free of inf - inf; a NaN or +inf among the logits makes the sum, and so the loss, NaN.
  float maximum = kLowest, sum = 0.0f;
  for_each_in_row(logits, call.vocabulary, [&](int64_t i, auto size) {
    constexpr int kSize = decltype(size)::value;
    float x[kSize];
    load(logits + i, x);
    float top = kLowest;
#pragma unroll
    for (int j = 0; j < kSize; ++j) {
      x[j] = map.logit(x[j]);
      top = fmaxf(top, x[j]);
    }
    if (top > maximum) {
      sum *= expf(maximum - top);
      maximum = top;
    }
#pragma unroll
    for (int j = 0; j < kSize; ++j) sum += expf(x[j] - maximum);
  });
  const float row_maximum = row_reduce(maximum, kLowest, Max());
  sum = row_sum(sum * expf(maximum - row_maximum));

  const int64_t label = call.labels[row];
  if (threadIdx.x == 0) {
    // A label outside the vocabulary shows as a NaN loss, never as a read outside the logits.
    const bool valid = label >= 0 && label < call.vocabulary;
    call.losses[row] = valid ? logf(sum) - (map.logit(to_float(logits[label])) - row_maximum) : NAN;
  }
  if (call.keep_logits) return;
  __syncthreads();  // the label's logit has been read

  const float inverse_sum = 1.0f / sum;
  for_each_in_row(logits, call.vocabulary, [&](int64_t i, auto size) {
    constexpr int kSize = decltype(size)::value;
    float x[kSize];
    load(logits + i, x);
#pragma unroll
    for (int j = 0; j < kSize; ++j) {
      const float probability = expf(map.logit(x[j]) - row_maximum) * inverse_sum;
      x[j] = weight * map.slope(x[j]) * (probability - (i + j == label ? 1.0f : 0.0f));
    }
    store(logits + i, x);
  });
}

}  // namespace

void cross_entropy(const CrossEntropy& call, Stream stream) {
  if (call.rows == 0 || call.vocabulary == 0) return;
  const auto always = [](int) { return true; };  // the kernel finds the borders of each row itself
  with_layout(call.dtype, always, [&](auto element, auto size) {
    unsigned threads = kWarp;
    while (threads < 1024 && threads * size < call.vocabulary) threads *= 2;
    launch("cross_entropy", cross_entropy_kernel<decltype(element)>, dim3(grid_size(call.rows)),
           dim3(threads), stream, call);
  });
}

}  // namespace qianli::ops::cuda
