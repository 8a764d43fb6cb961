// The state-space recurrence of Mamba-2, backward. A task owns some heads of a group of a sequence
// and takes them one after another: over the chunks once to have the state before each of them
// again, then backward. With the notation of state_space_forward.cpp, V = dt x, S' the state behind
// the chunk and gradients written with a leading d:
//
//   dV = tril(C B^T D)^T dout + exp(s_last - s) (B dS')
//   dx = dt dV + skip dout    ddt = rowsum(x dV)    dskip = sum(x dout)
//   M = tril(dout V^T D), added up over the heads
//   dC = M B + exp(s) (dout S^T)    dB = M^T C + exp(s_last - s) (V dS'^T)
//   dS = exp(s_last) dS' + C^T (exp(s) dout)
//   dt a: see ExponentGradients
//
// dB and dC are sums over heads: each part of a group's heads has float32 arrays of its own, which
// are added in order at the end.
#include <algorithm>

#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"
#include "qianli/ops/cpu/state_space.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/state_space_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/state_space-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

template <class T>
class StateSpaceBackwardTask {
 public:
  // grad_b, grad_c: [rows of the sequence][state_row], the task's own.
  StateSpaceBackwardTask(const StateSpaceBackward& b, const StateSpaceShape& shape,
                         int64_t sequence, float* memory, float* grad_b, float* grad_c)
      : b_(b), a_(b.forward), s_(shape), sequence_(sequence), grad_b_(grad_b), grad_c_(grad_c) {
    Arena arena(memory);
    m_.take(arena, s_);
  }

  void run() {
    std::fill_n(grad_b_, s_.rows * s_.state_row, 0.0f);
    std::fill_n(grad_c_, s_.rows * s_.state_row, 0.0f);
    load_group<T>(a_, s_, s_.start, s_.rows, {m_.b, s_.state_row}, {m_.c, s_.state_row});
    for (int64_t chunk = 0; chunk < s_.chunks; ++chunk) {
      set_chunk(chunk);
      group_scores(s_, b().at, c().at, count_, m_.b_t, scores());
      std::fill_n(score_grads(), kChunkSquare, 0.0f);
    }
    for (int64_t head = 0; head < s_.heads; ++head) run_head(head);
    for (int64_t chunk = 0; chunk < s_.chunks; ++chunk) {
      set_chunk(chunk);
      multiply(Part::kLower, rows_of(score_grads(), kChunk), b(), Into::kAdd, grad_c(), count_,
               count_, s_.state_size);
      multiply(Part::kUpper, columns_of(score_grads(), kChunk), c(), Into::kAdd, grad_b(), count_,
               count_, s_.state_size);
    }
  }

 private:
  void set_chunk(int64_t chunk) {
    chunk_ = chunk;
    count_ = std::min(kChunk, s_.rows - chunk * kChunk);
    row_ = s_.start + chunk * kChunk;
  }
  Matrix of_sequence(float* at) const { return Matrix{at, s_.state_row}.from(chunk_ * kChunk); }
  Matrix b() const { return of_sequence(m_.b); }
  Matrix c() const { return of_sequence(m_.c); }
  Matrix grad_b() const { return of_sequence(grad_b_); }
  Matrix grad_c() const { return of_sequence(grad_c_); }
  float* scores() const { return m_.scores + chunk_ * kChunkSquare; }
  float* score_grads() const { return m_.score_grads + chunk_ * kChunkSquare; }
  // Before `chunk`: [head_dim][state_row].
  Matrix state_t(int64_t chunk) const {
    return {m_.states_t + chunk * s_.head_dim * s_.state_row, s_.state_row};
  }
  Matrix of_values(float* at) const { return {at, s_.head_row}; }
  int64_t values_at() const { return (row_ * a_.heads + head_) * s_.head_dim; }
  int64_t values_stride() const { return a_.heads * s_.head_dim; }
  int64_t state_at() const { return (sequence_ * a_.heads + head_) * s_.state_size * s_.head_dim; }

  void run_head(int64_t head) {
    head_ = s_.first_head + head;
    load_states();
    for (int64_t chunk = 0; chunk < s_.chunks; ++chunk) {
      set_chunk(chunk);
      load_values();
      advance_state();
    }
    for (int64_t chunk = s_.chunks - 1; chunk >= 0; --chunk) {
      set_chunk(chunk);
      load_values();
      load_gradients();
      value_gradients();
      score_gradients();
      group_gradients();
      state_gradient();
    }
    if (b_.grad_initial_state) {
      store_rows(of_values(m_.grad_state), s_.state_size, s_.head_dim,
                 b_.grad_initial_state + state_at(), s_.head_dim);
    }
  }

  void load_states() {
    const Matrix first = state_t(0);
    std::fill_n(first.at, s_.head_dim * s_.state_row, 0.0f);
    if (a_.initial_state) {
      transpose(a_.initial_state + state_at(), s_.head_dim, s_.state_size, s_.state_size,
                s_.head_dim, 1.0f, first.at, first.row);
    }
    std::fill_n(m_.grad_state, s_.state_floats(), 0.0f);
    if (b_.grad_final_state) {
      copy_rows(b_.grad_final_state + state_at(), s_.head_dim, s_.state_size, s_.head_dim,
                s_.head_row, m_.grad_state);
    }
  }

  // x and V = dt x
  void load_values() {
    gates_.load(a_, head_, row_, count_);
    copy_rows(static_cast<const T*>(a_.x) + row_ * a_.x_stride + head_ * s_.head_dim, a_.x_stride,
              count_, s_.head_dim, s_.head_row, m_.x);
    scale_rows(
        of_values(m_.x), count_, s_.head_dim, [&](int64_t i) QIANLI_LAMBDA { return gates_.dt[i]; },
        of_values(m_.written));
  }

  // scaled = exp(s_last - s) V
  void scale_to_end() {
    scale_rows(
        of_values(m_.written), count_, s_.head_dim,
        [&](int64_t i) QIANLI_LAMBDA { return gates_.decay.to_end[i]; }, of_values(m_.scaled));
  }

  void advance_state() {
    scale_to_end();
    const Matrix next = state_t(chunk_ + 1);
    std::copy_n(state_t(chunk_).at, s_.head_dim * s_.state_row, next.at);
    std::fill_n(m_.whole, s_.head_dim, gates_.decay.whole);
    multiply(Part::kAll, columns_of(m_.scaled, s_.head_row), b(), Into::kAdd, next, s_.head_dim,
             count_, s_.state_size, m_.whole);
  }

  void load_gradients() {
    copy_rows(static_cast<const T*>(b_.grad_out) + values_at(), values_stride(), count_,
              s_.head_dim, s_.head_row, m_.grad_out);
    transpose(m_.written, s_.head_row, count_, padded_columns(count_), s_.head_dim, 1.0f,
              m_.written_t, kChunk);
    transpose(m_.grad_state, s_.head_row, s_.state_size, s_.state_size, s_.head_dim, 1.0f,
              m_.grad_state_t, s_.state_row);
  }

  void value_gradients() {
    const Matrix grad_v = of_values(m_.grad_written), grad_out = of_values(m_.grad_out);
    exponents_.clear(count_);
    decay_matrix(gates_.decay, count_, m_.mixing_grads);
    mix(
        scores(), m_.mixing_grads, count_, /*strictly=*/false,
        [&](int64_t, int64_t) QIANLI_LAMBDA { return set(1.0f); }, m_.mixing);
    multiply(Part::kAll, rows_of(b().at, s_.state_row), of_values(m_.grad_state), Into::kSet,
             grad_v, count_, s_.state_size, s_.head_dim);
    for (int64_t i = 0; i < count_; ++i) {
      const int64_t at = i * s_.head_row;
      exponents_.set_to_end(
          i, gates_.decay.to_end[i] * dot(m_.written + at, grad_v.at + at, s_.head_dim));
    }
    multiply(Part::kUpper, columns_of(m_.mixing, kChunk), grad_out, Into::kAdd, grad_v, count_,
             count_, s_.head_dim, gates_.decay.to_end);
    const V skip = set(a_.skip[head_]);
    for (int64_t i = 0; i < count_; ++i) {
      const int64_t at = row_ * a_.heads + head_ + i * a_.heads, row = i * s_.head_row;
      b_.grad_dt[at] = dot(m_.x + row, grad_v.at + row, s_.head_dim);
      b_.grad_skip[at] = dot(m_.x + row, grad_out.at + row, s_.head_dim);
      T* to = static_cast<T*>(b_.grad_x) + values_at() + i * values_stride();
      const V dt = set(gates_.dt[i]);
      each_vector(s_.head_dim, [&](int64_t v, int64_t n) QIANLI_LAMBDA {
        const V by_skip = hn::Mul(skip, hn::LoadU(F(), grad_out.at + row + v));
        store(hn::MulAdd(dt, hn::LoadU(F(), grad_v.at + row + v), by_skip), to + v, n);
      });
    }
  }

  // M of this head. mixing_grads holds the decays before.
  void score_gradients() {
    float* decay = m_.mixing_grads;
    float* grads = m_.mixing;
    multiply(Part::kLowerOfResult, rows_of(m_.grad_out, s_.head_row), {m_.written_t, kChunk},
             Into::kSet, {grads, kChunk}, count_, s_.head_dim, count_);
    mix(
        grads, decay, count_, /*strictly=*/false,
        [&](int64_t, int64_t) QIANLI_LAMBDA { return set(1.0f); }, grads);
    for (int64_t i = 0; i < count_; ++i) {
      const float* row = grads + i * kChunk;
      float* total = score_grads() + i * kChunk;
      each_vector(i + 1, [&](int64_t j, int64_t) QIANLI_LAMBDA {
        hn::StoreU(hn::Add(hn::LoadU(F(), total + j), hn::LoadU(F(), row + j)), F(), total + j);
      });
    }
    exponents_.add_crossing(scores(), grads);
  }

  void group_gradients() {
    scale_to_end();
    multiply(Part::kAll, rows_of(m_.scaled, s_.head_row), {m_.grad_state_t, s_.state_row},
             Into::kAdd, grad_b(), count_, s_.head_dim, s_.state_size);
    scale_rows(
        of_values(m_.grad_out), count_, s_.head_dim,
        [&](int64_t i) QIANLI_LAMBDA { return gates_.decay.from_start[i]; }, of_values(m_.scaled));
    multiply(Part::kAll, rows_of(m_.scaled, s_.head_row), state_t(chunk_), Into::kSet,
             {m_.grad_c, s_.state_row}, count_, s_.head_dim, s_.state_size);
    for (int64_t i = 0; i < count_; ++i) {
      const float* part = m_.grad_c + i * s_.state_row;
      float* total = grad_c().at + i * s_.state_row;
      exponents_.add_from_start(i, dot(part, c().at + i * s_.state_row, s_.state_size));
      each_vector(s_.state_size, [&](int64_t n, int64_t) QIANLI_LAMBDA {
        hn::StoreU(hn::Add(hn::LoadU(F(), total + n), hn::LoadU(F(), part + n)), F(), total + n);
      });
    }
  }

  // `scaled` is exp(s) dout here.
  void state_gradient() {
    const float* before = state_t(chunk_).at;
    double through = 0.0;
    for (int64_t x = 0; x < s_.head_dim; ++x) {
      through += dot(m_.grad_state_t + x * s_.state_row, before + x * s_.state_row, s_.state_size);
    }
    exponents_.store(gates_.decay.whole * through, b_.grad_decay + row_ * a_.heads + head_,
                     a_.heads);
    std::fill_n(m_.whole, s_.state_size, gates_.decay.whole);
    multiply(Part::kAll, columns_of(c().at, s_.state_row), of_values(m_.scaled), Into::kAdd,
             of_values(m_.grad_state), s_.state_size, count_, s_.head_dim, m_.whole);
  }

  const StateSpaceBackward& b_;
  const StateSpaceForward& a_;
  const StateSpaceShape s_;
  const int64_t sequence_;
  float *grad_b_, *grad_c_;
  StateSpaceBackwardMemory m_;
  StateSpaceGates gates_;
  ExponentGradients exponents_;
  int64_t head_ = 0, chunk_ = 0, count_ = 0, row_ = 0;
};

void RunStateSpaceBackward(const StateSpaceBackward& b, const StateSpaceShape& shape,
                           int64_t sequence, float* memory, float* grad_b, float* grad_c) {
  if (b.forward.dtype == Dtype::kFloat32) {
    return StateSpaceBackwardTask<float>(b, shape, sequence, memory, grad_b, grad_c).run();
  }
  StateSpaceBackwardTask<uint16_t>(b, shape, sequence, memory, grad_b, grad_c).run();
}

// to[row] = sum over parts of from[part][row]; rows of `columns` elements, padded to `row` floats.
template <class T>
HWY_INLINE void add_parts(const float* from, int64_t part_floats, int64_t parts, int64_t columns,
                          T* to) {
  each_vector(columns, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
    V sum = hn::LoadU(F(), from + i);
    for (int64_t part = 1; part < parts; ++part) {
      sum = hn::Add(sum, hn::LoadU(F(), from + part * part_floats + i));
    }
    store(sum, to + i, n);
  });
}

void AddStateSpaceParts(Dtype dtype, const float* from, int64_t part_floats, int64_t parts,
                        int64_t columns, void* to, int64_t at) {
  if (dtype == Dtype::kFloat32) {
    return add_parts(from, part_floats, parts, columns, static_cast<float*>(to) + at);
  }
  add_parts(from, part_floats, parts, columns, static_cast<uint16_t*>(to) + at);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {
namespace {

HWY_EXPORT(RunStateSpaceBackward);
HWY_EXPORT(AddStateSpaceParts);

}  // namespace

void state_space_backward(const StateSpaceBackward& args, Stream) {
  const StateSpaceForward& f = args.forward;
  if (f.sequences == 0) return;
  const int64_t parts = state_space_parts(f), rows = f.starts[f.sequences];
  // [part][group][row][state_row] for dB, then the same for dC.
  const int64_t row_floats = padded(f.state_size);
  const int64_t part_floats = f.groups * rows * row_floats;
  float* grad_b = scratch(Slot::kShared, static_cast<size_t>(2 * parts * part_floats));
  float* grad_c = grad_b + parts * part_floats;
  parallel_tasks(f.sequences * f.groups * parts, [&](int64_t task) {
    const int64_t sequence = task / (f.groups * parts), part = task % parts;
    const StateSpaceShape shape(f, sequence, task / parts % f.groups, part, parts);
    const int64_t at = part * part_floats + (shape.group * rows + shape.start) * row_floats;
    float* memory = scratch(Slot::kTask, floats_of<StateSpaceBackwardMemory>(shape));
    HWY_DYNAMIC_DISPATCH(RunStateSpaceBackward)
    (args, shape, sequence, memory, grad_b + at, grad_c + at);
  });
  parallel_ranges(rows * f.groups, row_grain(f.state_size), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t from = (i % f.groups * rows + i / f.groups) * row_floats;
      HWY_DYNAMIC_DISPATCH(AddStateSpaceParts)
      (f.dtype, grad_b + from, part_floats, parts, f.state_size, args.grad_b, i * f.state_size);
      HWY_DYNAMIC_DISPATCH(AddStateSpaceParts)
      (f.dtype, grad_c + from, part_floats, parts, f.state_size, args.grad_c, i * f.state_size);
    }
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
