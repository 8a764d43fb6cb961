// The products of a mixture's experts: each group of rows with its own matrix. Threads take tasks
// of (group, part of the matrix), so that many small products do not wait for one another. The
// packed operand goes to cache as panels of kPanel columns; the other one is read where it lies.
#include "qianli/ops/cpu/grouped_tasks.h"
#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/grouped_linear.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

constexpr int64_t kPanel = 64;       // columns of a packed panel, zero behind the last
constexpr int64_t kDepth = 256;      // terms of a sum before its partial result is stored
constexpr int64_t kPanelRows = 128;  // rows of x that the forward pass packs at a time
constexpr int64_t kOutBlock = 192;   // rows of W per partial result

HWY_INLINE int64_t vectors_of(int64_t columns) { return (columns + lanes() - 1) / lanes(); }

// Rows of an operand that is read element by element: in place when they are float32, else widened.
struct Rows {
  const float* data;
  int64_t stride;
};
HWY_INLINE Rows widened(const float* from, int64_t stride, int64_t, int64_t, float*) {
  return {from, stride};
}
HWY_INLINE Rows widened(const uint16_t* from, int64_t stride, int64_t rows, int64_t columns,
                        float* buffer) {
  const int64_t padded = vectors_of(columns) * lanes();
  copy_rows(from, stride, rows, columns, padded, buffer);
  return {buffer, padded};
}

HWY_INLINE void multiply(const Product& p, int64_t rows, int64_t depth, int64_t columns) {
  product(p, rows, [&](int64_t, int64_t) QIANLI_LAMBDA {
    return Span{0, depth, 0, vectors_of(columns)};
  });
}

template <class T>
HWY_INLINE void store_rows(const float* from, int64_t from_row, int64_t rows, int64_t columns,
                           T* to, int64_t to_row) {
  for (int64_t r = 0; r < rows; ++r) {
    each_vector(columns, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      store(load(from + r * from_row + i, n), to + r * to_row + i, n);
    });
  }
}

// Packs `columns` columns of `depth` rows into panels of kPanel columns, kDepth rows apart.
template <class T>
HWY_INLINE void pack_panels(const T* from, int64_t from_row, int64_t depth, int64_t columns,
                            float* panels) {
  constexpr int64_t kAhead = 8;  // rows; the hardware does not foresee the jump to the next one
  for (int64_t k = 0; k < depth; ++k) {
    prefetch_rows(from + (k + kAhead) * from_row, from_row, 1, columns);
    for (int64_t c = 0; c < columns; c += kPanel) {
      copy_rows(from + k * from_row + c, from_row, 1, std::min(kPanel, columns - c), kPanel,
                panels + c * kDepth + k * kPanel);
    }
  }
}

// Writes the transpose of tile [outs, kPanelRows] to y [tokens, outs], rows `stride` apart.
HWY_INLINE void store_transposed(const float* tile, int64_t outs, int64_t tokens, float*, float* y,
                                 int64_t stride) {
  transpose(tile, kPanelRows, outs, outs, tokens, 1.0f, y, stride);
}
HWY_INLINE void store_transposed(const float* tile, int64_t outs, int64_t tokens, float* buffer,
                                 uint16_t* y, int64_t stride) {
  transpose(tile, kPanelRows, outs, outs, tokens, 1.0f, buffer, kOutBlock);
  store_rows(buffer, kOutBlock, tokens, outs, y, stride);
}

// y^T = W x^T: the rows of x are packed, transposed; W is read once per kPanelRows of them.
template <class T>
void forward_task(const GroupedLinearForward& a, const GroupTask& task) {
  const int64_t in = a.shape.in, out = a.shape.out;
  const T* weight = static_cast<const T*>(a.weight) + task.group * out * in;
  const T* bias = a.bias ? static_cast<const T*>(a.bias) + task.group * out : nullptr;
  const int64_t panel_size = in * kPanel;
  float* panels = scratch(Slot::kTask, 2 * panel_size + kOutBlock * (2 * kPanelRows + kDepth));
  float* tile = panels + (kPanelRows / kPanel) * panel_size;
  float* buffer = tile + kOutBlock * kPanelRows;
  float* wide = buffer + kOutBlock * kPanelRows;
  for (int64_t row = 0; row < task.rows; row += kPanelRows) {
    const int64_t tokens = std::min(kPanelRows, task.rows - row);
    const int64_t first = task.first_row + row;
    // A single panel is as narrow as its rows allow.
    const int64_t panel = std::min(kPanel, vectors_of(tokens) * lanes());
    for (int64_t t = 0; t < tokens; t += kPanel) {
      const int64_t n = std::min(kPanel, tokens - t);
      transpose(static_cast<const T*>(a.x) + (first + t) * in, in, n, vectors_of(n) * lanes(), in,
                1.0f, panels + t / kPanel * panel_size, panel);
    }
    for (int64_t o = task.begin; o < task.end; o += kOutBlock) {
      const int64_t outs = std::min(kOutBlock, task.end - o);
      for (int64_t i = 0; bias && i < outs; ++i) {
        std::fill_n(tile + i * kPanelRows, kPanelRows, hn::GetLane(load(bias + o + i, 1)));
      }
      for (int64_t k = 0; k < in; k += kDepth) {
        const int64_t depth = std::min(kDepth, in - k);
        const Rows w = widened(weight + o * in + k, in, outs, depth, wide);
        for (int64_t t = 0; t < tokens; t += kPanel) {
          const Product p{.a = w.data,
                          .a_row = w.stride,
                          .a_column = 1,
                          .b = panels + t / kPanel * panel_size + k * panel,
                          .b_row = panel,
                          .c = tile + t,
                          .c_row = kPanelRows,
                          .accumulate = bias || k > 0,
                          .scale = nullptr};
          multiply(p, outs, depth, std::min(kPanel, tokens - t));
        }
      }
      store_transposed(tile, outs, tokens, buffer, static_cast<T*>(a.y) + first * out + o, out);
    }
  }
}

// grad_x = grad_y W: columns of W are packed, so that the rows of grad_y walk through them in
// cache. Several panels at a time, because short pieces of memory are slow to read.
template <class T>
void input_task(const GroupedLinearBackwardInput& a, const GroupTask& task) {
  constexpr int64_t kRows = 96, kWide = 4 * kPanel;
  const int64_t in = a.shape.in, out = a.shape.out;
  const T* weight = static_cast<const T*>(a.weight) + task.group * out * in;
  float* panels = scratch(Slot::kTask, kDepth * kWide + kRows * (kWide + kDepth));
  float* tile = panels + kDepth * kWide;
  float* wide = tile + kRows * kWide;
  for (int64_t row = 0; row < task.rows; row += kRows) {
    const int64_t rows = std::min(kRows, task.rows - row);
    const T* grad_y = static_cast<const T*>(a.grad_y) + (task.first_row + row) * out;
    T* grad_x = static_cast<T*>(a.grad_x) + (task.first_row + row) * in;
    for (int64_t c = task.begin; c < task.end; c += kWide) {
      const int64_t columns = std::min(kWide, task.end - c);
      for (int64_t k = 0; k < out; k += kDepth) {
        const int64_t depth = std::min(kDepth, out - k);
        pack_panels(weight + k * in + c, in, depth, columns, panels);
        const Rows g = widened(grad_y + k, out, rows, depth, wide);
        for (int64_t i = 0; i < columns; i += kPanel) {
          const Product p{.a = g.data,
                          .a_row = g.stride,
                          .a_column = 1,
                          .b = panels + i * kDepth,
                          .b_row = kPanel,
                          .c = tile + i,
                          .c_row = kWide,
                          .accumulate = k > 0,
                          .scale = nullptr};
          multiply(p, rows, depth, std::min(kPanel, columns - i));
        }
      }
      store_rows(tile, kWide, rows, columns, grad_x + c, in);
    }
  }
}

// Adds the columns [begin, end) of the group's rows to grad_bias.
template <class T>
void add_bias_gradient(const GroupedLinearBackwardWeight& a, const GroupTask& task) {
  const int64_t out = a.shape.out;
  float* sums = a.grad_bias + task.group * out + task.begin;
  for (int64_t row = task.first_row; row < task.first_row + task.rows; ++row) {
    const T* grad = static_cast<const T*>(a.grad_y) + row * out + task.begin;
    each_vector(task.end - task.begin, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      store(hn::Add(load(sums + i, n), load(grad + i, n)), sums + i, n);
    });
  }
}

// C (+)= A B for one panel of columns of the gradient. Whole vectors are written where they belong,
// others by way of `tile`.
HWY_INLINE void add_panel(Product p, int64_t outs, int64_t depth, int64_t columns, float* tile) {
  if (columns % lanes() == 0) return multiply(p, outs, depth, columns);
  float* to = p.c;
  const int64_t to_row = p.c_row;
  const bool add = p.accumulate;
  p.c = tile;
  p.c_row = kPanel;
  p.accumulate = false;
  multiply(p, outs, depth, columns);
  for (int64_t o = 0; o < outs; ++o) {
    each_vector(columns, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      const V value = load(tile + o * kPanel + i, n);
      float* at = to + o * to_row + i;
      store(add ? hn::Add(value, load(at, n)) : value, at, n);
    });
  }
}

// grad_weight (+)= grad_y^T x over the group's rows.
template <class T>
void weight_task(const GroupedLinearBackwardWeight& a, const GroupTask& task) {
  const int64_t in = a.shape.in, out = a.shape.out;
  if (a.grad_bias) add_bias_gradient<T>(a, task);
  if (!a.grad_weight) return;
  float* grad = a.grad_weight + task.group * out * in;
  if (task.rows == 0) {
    if (!a.accumulate) std::fill_n(grad + task.begin * in, (task.end - task.begin) * in, 0.0f);
    return;
  }
  float* panel = scratch(Slot::kTask, kDepth * (kPanel + kOutBlock) + kOutBlock * kPanel);
  float* block = panel + kDepth * kPanel;  // grad_y [rows, outs]
  float* tile = block + kDepth * kOutBlock;
  for (int64_t row = 0; row < task.rows; row += kDepth) {
    const int64_t depth = std::min(kDepth, task.rows - row), first = task.first_row + row;
    for (int64_t o = task.begin; o < task.end; o += kOutBlock) {
      const int64_t outs = std::min(kOutBlock, task.end - o);
      copy_rows(static_cast<const T*>(a.grad_y) + first * out + o, out, depth, outs, kOutBlock,
                block);
      for (int64_t c = 0; c < in; c += kPanel) {
        const int64_t columns = std::min(kPanel, in - c);
        copy_rows(static_cast<const T*>(a.x) + first * in + c, in, depth, columns, kPanel, panel);
        add_panel({.a = block,
                   .a_row = 1,
                   .a_column = kOutBlock,
                   .b = panel,
                   .b_row = kPanel,
                   .c = grad + o * in + c,
                   .c_row = in,
                   .accumulate = a.accumulate || row > 0,
                   .scale = nullptr},
                  outs, depth, columns, tile);
      }
    }
  }
}

void GroupedForwardTask(const GroupedLinearForward& a, const GroupTask& task) {
  if (a.shape.dtype == Dtype::kFloat32) return forward_task<float>(a, task);
  forward_task<uint16_t>(a, task);
}

void GroupedInputTask(const GroupedLinearBackwardInput& a, const GroupTask& task) {
  if (a.shape.dtype == Dtype::kFloat32) return input_task<float>(a, task);
  input_task<uint16_t>(a, task);
}

void GroupedWeightTask(const GroupedLinearBackwardWeight& a, const GroupTask& task) {
  if (a.shape.dtype == Dtype::kFloat32) return weight_task<float>(a, task);
  weight_task<uint16_t>(a, task);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {

HWY_EXPORT(GroupedForwardTask);
HWY_EXPORT(GroupedInputTask);
HWY_EXPORT(GroupedWeightTask);

namespace {
constexpr int64_t kGrain = 64;  // of an axis of the matrix: a whole panel
}

void grouped_linear_forward(const GroupedLinearForward& args, Stream) {
  const auto tasks = group_tasks(args.shape, args.shape.out, kGrain, /*with_empty=*/false);
  parallel_tasks(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    HWY_DYNAMIC_DISPATCH(GroupedForwardTask)(args, tasks[i]);
  });
}

void grouped_linear_backward_input(const GroupedLinearBackwardInput& args, Stream) {
  const auto tasks = group_tasks(args.shape, args.shape.in, kGrain, /*with_empty=*/false);
  parallel_tasks(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    HWY_DYNAMIC_DISPATCH(GroupedInputTask)(args, tasks[i]);
  });
}

void grouped_linear_backward_weight(const GroupedLinearBackwardWeight& args, Stream) {
  const auto tasks = group_tasks(args.shape, args.shape.out, kGrain, /*with_empty=*/true);
  parallel_tasks(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    HWY_DYNAMIC_DISPATCH(GroupedWeightTask)(args, tasks[i]);
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
