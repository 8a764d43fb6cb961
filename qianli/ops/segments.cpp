#include "qianli/ops/segments.h"

#include <algorithm>

namespace qianli::ops {

void check_segments(const char* op, const SegmentStarts& starts, int64_t rows) {
  TORCH_CHECK(!starts.empty() && starts.front() == 0 && starts.back() == rows &&
                  std::is_sorted(starts.begin(), starts.end()),
              "[", op, "] expected segment starts that ascend from 0 to ", rows);
}

at::Tensor with_whole_rows(const at::Tensor& x) {
  int64_t size = 1;
  for (int64_t axis = x.dim() - 1; axis > 0; --axis) {
    if (x.stride(axis) != size) return x.contiguous();
    size *= x.size(axis);
  }
  return x;
}

}  // namespace qianli::ops
