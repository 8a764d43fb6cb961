#include "qianli/optim/data_parallel.h"

#include <ATen/ops/empty.h>

namespace qianli::optim {

DataParallel::DataParallel(dist::Group replicas, nn::FlatSharding sharding, bool sharded)
    : replicas_(std::move(replicas)),
      sharding_(sharding),
      sharded_(sharded && !replicas_.alone()) {}

void DataParallel::start_reducing(const at::Tensor& gradients, int64_t offset) {
  if (replicas_.alone()) return;
  const int64_t size = gradients.size(0);
  if (reduced_from_ < 0) {
    reduced_from_ = size;
    own_ = sharded_
               ? at::empty({sharding_.slices(size, replicas_.rank()).count()}, gradients.options())
               : gradients;
  }
  const std::vector<nn::FlatRange> buckets = sharding_.buckets(size);
  for (auto bucket = buckets.rbegin(); bucket != buckets.rend(); ++bucket) {
    if (bucket->begin < offset) break;
    if (bucket->begin >= reduced_from_) continue;
    start_bucket(gradients, *bucket);
    reduced_from_ = bucket->begin;
  }
}

void DataParallel::start_bucket(const at::Tensor& gradients, const nn::FlatRange& bucket) {
  const at::Tensor whole = gradients.narrow(0, bucket.begin, bucket.count());
  if (!sharded_) {
    pending_.push_back(replicas_.start_all_reduce(whole));
    return;
  }
  const nn::FlatRanges slices = sharding_.slices(gradients.size(0), replicas_.rank());
  for (const auto& part : slices.within(bucket.begin, bucket.end)) {
    pending_.push_back(
        replicas_.start_reduce_scatter(own_.narrow(0, part.place, part.count), whole));
  }
}

at::Tensor DataParallel::finish_reducing(const at::Tensor& gradients) {
  if (replicas_.alone()) return gradients;
  start_reducing(gradients, 0);
  for (dist::Pending& each : pending_) each.wait();
  pending_.clear();
  reduced_from_ = -1;
  return std::move(own_);
}

void DataParallel::gather(const at::Tensor& flat) const {
  if (!sharded_) return;
  std::vector<dist::Pending> pending;
  for (const nn::FlatRange& bucket : sharding_.buckets(flat.size(0))) {
    const nn::FlatRange slice = sharding_.slice(bucket, replicas_.rank());
    const at::Tensor whole = flat.narrow(0, bucket.begin, bucket.count());
    // A copy: the slice is a part of what is written.
    pending.push_back(
        replicas_.start_all_gather(whole, flat.narrow(0, slice.begin, slice.count()).clone()));
  }
  for (dist::Pending& each : pending) each.wait();
}

}  // namespace qianli::optim
