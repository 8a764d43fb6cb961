// Depthwise causal convolution with SiLU, forward and backward.
//
// Vectors run over channels. Forward cuts the rows into ranges; backward cuts the channels, so that
// the weight's gradient needs no sum over threads.
#include <algorithm>

#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/causal_conv1d.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// The convolution of one vector of channels before the activation. `taps` [kernel][channels] holds
// the weights of the vector, tap(j) its input for weight j, or null.
template <class T, class Tap>
HWY_INLINE V convolved(const CausalConvForward& a, const float* taps, int64_t channel, int64_t n,
                       int64_t first_tap, const Tap& tap) {
  V sum = a.bias ? load(static_cast<const T*>(a.bias) + channel, n) : zero();
  for (int64_t j = first_tap; j < a.kernel; ++j) {
    sum = hn::MulAdd(load(tap(j) + channel, n), load(taps + j * a.channels + channel, n), sum);
  }
  return sum;
}

// The convolution of row t of the sequence that starts at `start`.
template <class T>
HWY_INLINE V convolved_row(const CausalConvForward& a, const float* taps, int64_t start, int64_t t,
                           int64_t channel, int64_t n) {
  const T* x = static_cast<const T*>(a.x);
  const int64_t oldest = t - a.kernel + 1;
  if (oldest >= start || !a.tail) {
    return convolved<T>(a, taps, channel, n, std::max<int64_t>(0, start - oldest),
                        [&](int64_t j) QIANLI_LAMBDA { return x + (oldest + j) * a.x_stride; });
  }
  const T* tail = static_cast<const T*>(a.tail) + (a.kernel - 1) * a.channels;
  return convolved<T>(a, taps, channel, n, 0, [&](int64_t j) QIANLI_LAMBDA {
    const int64_t row = oldest + j;
    return row >= start ? x + row * a.x_stride : tail + (row - start) * a.channels;
  });
}

// Rows [begin, end) of one sequence.
template <class T>
void forward_rows(const CausalConvForward& a, const float* taps, int64_t start, int64_t begin,
                  int64_t end) {
  for (int64_t first = 0; first < a.channels; first += kConvChannels) {
    const int64_t count = std::min(kConvChannels, a.channels - first);
    for (int64_t t = begin; t < end; ++t) {
      T* y = static_cast<T*>(a.y) + t * a.channels + first;
      each_vector(count, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
        V sum = convolved_row<T>(a, taps, start, t, first + i, n);
        if (a.silu) sum = hn::Mul(sum, sigmoid(sum));
        store(sum, y + i, n);
      });
    }
  }
}

// The gradients of one block of channels in a tile of rows of one sequence.
template <class T>
class BackwardTile {
 public:
  BackwardTile(const CausalConvBackward& a, const float* taps, int64_t first, float* memory)
      : a_(a),
        f_(a.forward),
        taps_(taps),
        first_(first),
        count_(std::min(kConvChannels, a.forward.channels - first)),
        slopes_(memory),
        grad_taps_(memory + (kConvTileRows + f_.kernel - 1) * kConvChannels) {
    std::fill_n(grad_taps_, (f_.kernel + 1) * kConvChannels, 0.0f);
  }

  void run(int64_t start, int64_t begin, int64_t end, int64_t sequence_end) {
    const int64_t slopes_end = std::min(end + f_.kernel - 1, sequence_end);
    for (int64_t t = begin; t < slopes_end; ++t) slope_row(start, t, slopes_ + row(t - begin));
    for (int64_t t = begin; t < end; ++t) input_row(t, slopes_ + row(t - begin), slopes_end);
    if (a_.grad_weight || a_.grad_bias) add_tap_gradients(start, begin, end);
  }

  void add_to_parameters() const {
    for (int64_t c = 0; c < count_; ++c) {
      for (int64_t j = 0; a_.grad_weight && j < f_.kernel; ++j) {
        a_.grad_weight[(first_ + c) * f_.kernel + j] += grad_taps_[row(j) + c];
      }
      if (a_.grad_bias) a_.grad_bias[first_ + c] += grad_taps_[row(f_.kernel) + c];
    }
  }

 private:
  static int64_t row(int64_t r) { return r * kConvChannels; }

  // The gradient of the convolution's result.
  HWY_INLINE void slope_row(int64_t start, int64_t t, float* to) const {
    const T* grad = static_cast<const T*>(a_.grad_y) + t * f_.channels + first_;
    each_vector(count_, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      V slope = load(grad + i, n);
      if (f_.silu) {
        const V x = convolved_row<T>(f_, taps_, start, t, first_ + i, n);
        V s, rest;
        sigmoid_and_rest(x, s, rest);
        slope = hn::Mul(slope, hn::MulAdd(hn::Mul(x, s), rest, s));
      }
      hn::StoreU(slope, F(), to + i);
    });
  }

  // Row t reaches the results of rows t … t + kernel - 1.
  HWY_INLINE void input_row(int64_t t, const float* slopes, int64_t slopes_end) const {
    T* grad = static_cast<T*>(a_.grad_x) + t * f_.channels + first_;
    const int64_t reach = std::min(f_.kernel, slopes_end - t);
    each_vector(count_, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      V sum = zero();
      for (int64_t later = 0; later < reach; ++later) {
        const float* tap = taps_ + (f_.kernel - 1 - later) * f_.channels + first_ + i;
        sum = hn::MulAdd(load(tap, n), hn::LoadU(F(), slopes + row(later) + i), sum);
      }
      store(sum, grad + i, n);
    });
  }

  HWY_INLINE void add_tap_gradients(int64_t start, int64_t begin, int64_t end) {
    const T* x = static_cast<const T*>(f_.x) + first_;
    each_vector(count_, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      for (int64_t j = 0; j < f_.kernel; ++j) {
        const int64_t back = f_.kernel - 1 - j;
        V sum = zero();
        for (int64_t t = std::max(begin, start + back); t < end; ++t) {
          const V slope = hn::LoadU(F(), slopes_ + row(t - begin) + i);
          sum = hn::MulAdd(slope, load(x + (t - back) * f_.x_stride + i, n), sum);
        }
        add(sum, grad_taps_ + row(j) + i);
      }
      V sum = zero();
      for (int64_t t = begin; t < end; ++t) {
        sum = hn::Add(sum, hn::LoadU(F(), slopes_ + row(t - begin) + i));
      }
      add(sum, grad_taps_ + row(f_.kernel) + i);
    });
  }
  HWY_INLINE void add(V sum, float* to) const {
    hn::StoreU(hn::Add(sum, hn::LoadU(F(), to)), F(), to);
  }

  const CausalConvBackward& a_;
  const CausalConvForward& f_;
  const float* taps_;
  int64_t first_, count_;
  float* slopes_;     // [kConvTileRows + kernel - 1][kConvChannels]
  float* grad_taps_;  // [kernel + 1][kConvChannels], the last row for the bias
};

template <class T>
void backward_channels(const CausalConvBackward& a, const float* taps, int64_t first,
                       float* memory) {
  const CausalConvForward& f = a.forward;
  BackwardTile<T> tile(a, taps, first, memory);
  for (int64_t s = 0; s < f.sequences; ++s) {
    const int64_t start = f.starts[s], end = f.starts[s + 1];
    for (int64_t t = start; t < end; t += kConvTileRows) {
      tile.run(start, t, std::min(t + kConvTileRows, end), end);
    }
  }
  tile.add_to_parameters();
}

// taps[j * channels + c] = weight[c, j] as float32.
template <class T>
void transpose_weight(const CausalConvForward& a, float* taps) {
  const T* weight = static_cast<const T*>(a.weight);
  for (int64_t c = 0; c < a.channels; ++c) {
    for (int64_t j = 0; j < a.kernel; ++j) {
      taps[j * a.channels + c] = hn::GetLane(load(weight + c * a.kernel + j, 1));
    }
  }
}

void CausalConvTaps(const CausalConvForward& a, float* taps) {
  if (a.dtype == Dtype::kFloat32) return transpose_weight<float>(a, taps);
  transpose_weight<uint16_t>(a, taps);
}

void CausalConvForwardRows(const CausalConvForward& a, const float* taps, int64_t start,
                           int64_t begin, int64_t end) {
  if (a.dtype == Dtype::kFloat32) return forward_rows<float>(a, taps, start, begin, end);
  forward_rows<uint16_t>(a, taps, start, begin, end);
}

void CausalConvBackwardChannels(const CausalConvBackward& a, const float* taps, int64_t first,
                                float* memory) {
  if (a.forward.dtype == Dtype::kFloat32) return backward_channels<float>(a, taps, first, memory);
  backward_channels<uint16_t>(a, taps, first, memory);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {
namespace {

HWY_EXPORT(CausalConvTaps);
HWY_EXPORT(CausalConvForwardRows);
HWY_EXPORT(CausalConvBackwardChannels);

const float* transposed_taps(const CausalConvForward& args) {
  float* taps = scratch(Slot::kShared, static_cast<size_t>(args.channels * args.kernel));
  HWY_DYNAMIC_DISPATCH(CausalConvTaps)(args, taps);
  return taps;
}

}  // namespace

void causal_conv_forward(const CausalConvForward& args, Stream) {
  const float* taps = transposed_taps(args);
  const int64_t rows = args.starts[args.sequences];
  parallel_ranges(rows, row_grain(args.channels), [&](int64_t begin, int64_t end) {
    for (int64_t s = 0; s < args.sequences; ++s) {
      const int64_t from = std::max(begin, args.starts[s]), to = std::min(end, args.starts[s + 1]);
      if (from >= to) continue;
      HWY_DYNAMIC_DISPATCH(CausalConvForwardRows)(args, taps, args.starts[s], from, to);
    }
  });
}

void causal_conv_backward(const CausalConvBackward& args, Stream) {
  const CausalConvForward& f = args.forward;
  const float* taps = transposed_taps(f);
  parallel_tasks((f.channels + kConvChannels - 1) / kConvChannels, [&](int64_t block) {
    float* memory =
        scratch(Slot::kTask, static_cast<size_t>((kConvTileRows + 2 * f.kernel) * kConvChannels));
    HWY_DYNAMIC_DISPATCH(CausalConvBackwardChannels)(args, taps, block * kConvChannels, memory);
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
