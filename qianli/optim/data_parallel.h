// Gradients of replicas become one, bucket by bucket of the flat buffer, and what each rank updated
// returns to all.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "qianli/dist/group.h"
#include "qianli/nn/flat_ranges.h"

namespace qianli::optim {

class DataParallel {
 public:
  DataParallel() = default;  // of one replica
  // `sharded`: every replica updates its slices only (ZeRO-1), else each updates all.
  DataParallel(dist::Group replicas, nn::FlatSharding sharding, bool sharded);

  // Sums the gradients [flat size] of all replicas. They are final from element `offset` on: the
  // buckets that lie there whole, and were not on their way before, go on it now. A backward pass
  // completes gradients from the end to the front, so buckets travel while it goes on.
  void start_reducing(const at::Tensor& gradients, int64_t offset);
  // All are final: reduces what is left, waits for everything, and returns the gradients of the
  // ranges that this rank owns, one behind the other: `gradients` itself where it owns all.
  at::Tensor finish_reducing(const at::Tensor& gradients);
  // Whether what this rank got of finish_reducing() counts in a sum over all replicas: no two that
  // count have the same.
  bool counts() const { return sharded_ || replicas_.rank() == 0; }
  // Hands the updated slices of `flat` [flat size] to all replicas.
  void gather(const at::Tensor& flat) const;

 private:
  dist::Group replicas_;
  nn::FlatSharding sharding_;
  bool sharded_ = false;

  void start_bucket(const at::Tensor& gradients, const nn::FlatRange& bucket);
  // Of the reduction that goes on.
  int64_t reduced_from_ = -1;  // begin of the last bucket on its way; -1: none is
  at::Tensor own_;
  std::vector<dist::Pending> pending_;
};

}  // namespace qianli::optim
