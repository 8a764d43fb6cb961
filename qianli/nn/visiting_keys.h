// The keys and values of all places of a context ring as they come by one of them, and the way of
// their gradients home. A visit is a block of keys; on the last visit all have been here.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "qianli/data/context_deal.h"
#include "qianli/dist/group.h"

namespace qianli::nn {

// Of one visit. Shapes: [rows, key heads, D] and [rows, key heads, Dv].
struct KeyBlock {
  at::Tensor k, v;
  const std::vector<data::ContextPart>& parts;  // what the rows are
};

class VisitingKeys {
 public:
  virtual ~VisitingKeys() = default;
  virtual int64_t visits() const = 0;
  // To be called for 0, 1, 2 …; what later visits bring is under way when this returns.
  virtual KeyBlock visit(int64_t visit) = 0;

  // A pass that gives gradients: after each visit those of its keys and values as packed_keys lays
  // them out, in float32 (float64 for float64); the tensor is given up.
  virtual void give(int64_t visit, at::Tensor gradient) = 0;
  // Ends the pass, and returns the sum of the gradients that all places gave of the own keys and
  // values; undefined where none were given.
  virtual at::Tensor finish() = 0;
};

// One row per token: its keys, head by head, then its values.
at::Tensor packed_keys(const at::Tensor& k, const at::Tensor& v);
struct KeysAndValues {
  at::Tensor k, v;  // views
};
KeysAndValues unpacked_keys(const at::Tensor& packed, int64_t heads, int64_t key_dim);

// What a forward pass leaves for its backward pass of visits that brought other places' keys:
// packed keys and values, or keys alone ([rows, key heads, D]).
struct KeysLeft {
  data::KeptKeys what = data::KeptKeys::kNone;
  std::vector<at::Tensor> blocks;
};

// k, v: of this place. Under the algorithm kKvAllGather all come in one visit, else one place's
// after the other while the one before is computed with. `deal` must outlive the result, and `left`
// too. A forward pass fills what it says; a backward pass, in which give() will be called, reads
// it.
enum class Pass { kForward, kBackward };
std::unique_ptr<VisitingKeys> visiting_keys(const at::Tensor& k, const at::Tensor& v,
                                            const data::ContextDeal& deal, const dist::Group& ring,
                                            Pass pass, KeysLeft& left);

}  // namespace qianli::nn
