// Rows that the ranks of a group share: all of them for everyone, and sums of everyone's back to
// who has the rows. Each is the other's gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "qianli/dist/group.h"

namespace qianli::nn {

class SharedRows {
 public:
  // `rows` in shares as even as can be, the first ranks' one longer.
  static SharedRows even(int64_t rows, const dist::Group& group);
  // Every rank has its own number of rows; all ranks call it.
  static SharedRows of_each(int64_t own, const dist::Group& group);

  // [own, …] -> [all, …], in the order of ranks. Without a graph.
  at::Tensor gathered(const at::Tensor& own) const;
  // [all, …], of which every rank has a part of a sum -> the sum's rows [own, …]. Without a graph.
  at::Tensor summed(const at::Tensor& parts) const;

  // The same with gradients; the group must outlive the graph.
  at::Tensor gather(const at::Tensor& own) const;
  at::Tensor sum(const at::Tensor& parts) const;

 private:
  SharedRows(const dist::Group& group, std::vector<int64_t> counts);
  friend class RowsFunction;

  const dist::Group* group_;
  std::vector<int64_t> counts_;  // of each rank
  int64_t largest_ = 0;
  bool equal_ = true;
};

}  // namespace qianli::nn
