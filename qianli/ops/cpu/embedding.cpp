// Embedding lookup and the scatter of its gradient. Copies only, except for the bfloat16 gradient.
#include <algorithm>
#include <cstring>

#include "qianli/ops/cpu/internal.h"
#include "qianli/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "qianli/ops/cpu/embedding.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "qianli/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

template <class T>
void add_columns(const EmbeddingBackward& a, int64_t begin, int64_t end) {
  for (int64_t token = 0; token < a.tokens; ++token) {
    const T* from = static_cast<const T*>(a.grad_y) + token * a.width + begin;
    float* to = a.grad_table + a.ids[token] * a.width + begin;
    each_vector(end - begin, [&](int64_t i, int64_t n) QIANLI_LAMBDA {
      store(hn::Add(load(to + i, n), load(from + i, n)), to + i, n);
    });
  }
}

void AddColumns(const EmbeddingBackward& a, int64_t begin, int64_t end) {
  if (a.dtype == Dtype::kFloat32) return add_columns<float>(a, begin, end);
  add_columns<uint16_t>(a, begin, end);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qianli::ops::cpu {

HWY_EXPORT(AddColumns);

void embedding_forward(const EmbeddingForward& args, Stream) {
  const size_t row_bytes =
      static_cast<size_t>(args.width) * (args.dtype == Dtype::kFloat32 ? 4 : 2);
  const auto* table = static_cast<const char*>(args.table);
  auto* y = static_cast<char*>(args.y);
  parallel_ranges(args.tokens, row_grain(args.width), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      std::memcpy(y + static_cast<size_t>(token) * row_bytes,
                  table + static_cast<size_t>(args.ids[token]) * row_bytes, row_bytes);
    }
  });
}

// Threads share the columns, not the tokens: no two write the same element, the load is even
// however skewed the ids are, and the order of additions does not depend on the number of threads.
void embedding_backward(const EmbeddingBackward& args, Stream) {
  constexpr int64_t kColumns = 64;
  const int64_t groups = (args.width + kColumns - 1) / kColumns;
  const int64_t grain =
      std::max<int64_t>(1, 16384 / (kColumns * std::max<int64_t>(1, args.tokens)));
  parallel_ranges(groups, grain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AddColumns)
    (args, begin * kColumns, std::min(end * kColumns, args.width));
  });
}

}  // namespace qianli::ops::cpu
#endif  // HWY_ONCE
