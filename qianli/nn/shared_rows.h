// Rows that the ranks of a group share: all of them for everyone, and sums of everyone's back to
// who has the rows. Each is the other's gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "qianli/dist/group.h"

namespace qianli::nn {

// A gather or a sum on its way.
class MovingRows {
 public:
  MovingRows() = default;
  // Where nothing has to travel.
  explicit MovingRows(at::Tensor rows) : landing_(std::move(rows)) {}
  MovingRows(at::Tensor landing, dist::Pending pending,
             std::function<at::Tensor(const at::Tensor&)> unpack = {})
      : landing_(std::move(landing)), pending_(std::move(pending)), unpack_(std::move(unpack)) {}

  // The rows, at the first call.
  at::Tensor wait();

 private:
  at::Tensor landing_;
  dist::Pending pending_;
  std::function<at::Tensor(const at::Tensor&)> unpack_;
};

class SharedRows {
 public:
  // `rows` in shares as even as can be, the first ranks' one longer.
  static SharedRows even(int64_t rows, const dist::Group& group);
  // counts: of each rank.
  static SharedRows of_counts(std::vector<int64_t> counts, const dist::Group& group);
  // Every rank has its own number of rows; all ranks call it.
  static SharedRows of_each(int64_t own, const dist::Group& group);

  // [own, …] -> [all, …], in the order of ranks. Without a graph.
  at::Tensor gathered(const at::Tensor& own) const;
  // [all, …], of which every rank has a part of a sum -> the sum's rows [own, …]. Without a graph.
  at::Tensor summed(const at::Tensor& parts) const;

  MovingRows start_gather(const at::Tensor& own) const;
  MovingRows start_sum(const at::Tensor& parts) const;

  // The i-th of n slices, which has a part of every rank's rows: gathered or summed one after the
  // other they are all rows. Some may be empty.
  SharedRows slice(int64_t i, int64_t n) const;
  at::Tensor own_slice(const at::Tensor& own, int64_t i, int64_t n) const;
  // Of all rows those of the slice, in its order; and the other way round.
  at::Tensor take_slice(const at::Tensor& all, int64_t i, int64_t n) const;
  void put_slice(const at::Tensor& all, const at::Tensor& rows, int64_t i, int64_t n) const;

  int64_t total() const;

  // The same with gradients; the group must outlive the graph.
  at::Tensor gather(const at::Tensor& own) const;
  at::Tensor sum(const at::Tensor& parts) const;

 private:
  SharedRows(const dist::Group& group, std::vector<int64_t> counts);
  friend class RowsFunction;
  // body(rank's slice among all rows, its first row in the slice)
  template <class Body>
  void over_slice(int64_t i, int64_t n, const Body& body) const;

  const dist::Group* group_;
  std::vector<int64_t> counts_;  // of each rank
  int64_t largest_ = 0;
  bool equal_ = true;
};

}  // namespace qianli::nn
