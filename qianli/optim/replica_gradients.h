// The gradients of a rank, from where ops add them to the sum over all replicas of what the rank
// updates. A region keeps them whole for the step, and its buckets travel as soon as all in them is
// final; or a rank keeps the sum of its slices only (ZeRO-2): a unit's gradients have memory from
// the first contribution of a backward pass until they are on their way to those who own them.
#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <optional>
#include <vector>

#include "qianli/nn/parameter_set.h"
#include "qianli/nn/unit_buffers.h"
#include "qianli/optim/partial_gradients.h"
#include "qianli/optim/replicas.h"

namespace qianli::optim {

struct GradientOptions {
  bool slices = false;  // only those of the rank are kept, where ranks share out a region
  bool overlap = true;  // gradients travel while the backward pass goes on
  // In which they are summed over replicas; absent: that of the gradients.
  std::optional<at::ScalarType> travels_as;
};

class ReplicaGradients {
 public:
  // Attaches gradients to all parameters that are trained. `replicas`: of each region of these.
  ReplicaGradients(nn::ParameterSet& parameters, std::vector<Replicas> replicas, PartGroups parts,
                   GradientOptions options);
  ReplicaGradients(const ReplicaGradients&) = delete;
  ReplicaGradients& operator=(const ReplicaGradients&) = delete;

  // Forgets all gradients; the next contributions overwrite.
  void reset();
  // A backward pass has added all of its gradients of the unit. All replicas call it, and the
  // others, in the same order.
  void added(size_t unit);
  // And no other one of this step adds to them.
  void are_final(const nn::Units& units);
  // After the last backward pass: what got nothing counts as zero, and everything is summed.
  void finish();

  // After finish(), of what is owned.
  at::Tensor own(const nn::FlatRanges::Part& part) const;
  bool counts(const nn::FlatRanges::Part& part) const;
  // Sums what this rank owns of the units over ranks that hold them, too, at the same places.
  void sum_own(const dist::Group& group, const nn::Units& units);

  // [layout().trained_size()], where all regions keep them whole.
  const at::Tensor& whole() const;
  int64_t kept_bytes() const;  // always there
  int64_t peak_unit_bytes() const { return units_.peak_bytes(); }

 private:
  struct Region {
    nn::FlatLayout::Region of;
    Replicas replicas;
    bool slices = false;
    at::Tensor whole;  // [of.range.count()]; undefined: slices are kept
    at::Tensor own;    // [of.own.count()]
  };
  struct Bucket {
    size_t buffer = 0;                // of units_, where slices are kept
    std::vector<nn::FlatRange> gaps;  // between the parameters, from the bucket's begin on
    size_t waiting = 0;               // units that have gradients to come in this step
    bool has_sum = false;             // own slice: of the passes so far
  };
  struct Travel {
    dist::Pending pending;
    size_t bucket;
    at::Tensor sent, received;
  };
  const Region* region_of(size_t bucket) const;  // null: frozen
  void attach(size_t bucket);
  void need(size_t bucket);
  std::vector<size_t> parameters_in(size_t unit, size_t region) const;
  // Those that got nothing become zero; sums within the model.
  void complete(const std::vector<size_t>& parameters);
  void make_final(const nn::Units& units);
  void send(size_t bucket);
  void arrive();  // the oldest that travels
  void sum_across(const Region& region);
  at::Tensor own_of(size_t bucket) const;
  at::Tensor as_sent(const at::Tensor& gradients) const;

  nn::ParameterSet& parameters_;
  PartialGradients parts_;
  GradientOptions options_;
  at::Tensor whole_;
  std::vector<Region> regions_;
  std::vector<Bucket> buckets_;  // as the layout's
  std::vector<bool> final_;      // units
  nn::UnitBuffers units_;
  std::deque<Travel> travelling_;
};

}  // namespace qianli::optim
