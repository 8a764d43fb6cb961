// One forward pass of a chunk over a microbatch, and the backward pass that belongs to it, as they
// come to units of parameters: these are made whole before they are used and let go behind, and
// their gradients are handed over when no more come.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "qianli/nn/unit_use.h"
#include "qianli/ops/deferred_gradients.h"
#include "qianli/optim/flat_optimizer.h"

namespace qianli::train {

class UnitPass : public nn::UnitUse, public std::enable_shared_from_this<UnitPass> {
 public:
  // `completes`: of these units no other backward pass of the step has gradients.
  UnitPass(optim::FlatOptimizer& optimizer, nn::Units completes)
      : optimizer_(optimizer),
        completes_(std::move(completes)),
        deferred_(ops::DeferredGradients::current()) {}

  void before_forward(const nn::Units& units) override;
  void after_forward(const nn::Units& units, const std::vector<at::Tensor>& outputs) override;
  // The backward pass has ended. Where it has put off gradients of weights: and when these are
  // there.
  void end_backward();

 private:
  // The backward pass comes to a stop, or to the end (none): it has left those behind that.
  void come_to(std::optional<size_t> stop);
  void hand_over(size_t unit);

  optim::FlatOptimizer& optimizer_;
  nn::Units completes_;
  ops::DeferredGradients::Pointer deferred_;  // null: gradients of weights come at once
  std::vector<nn::Units> stops_;              // where units were used in the forward pass
  std::optional<size_t> ahead_;  // stops below it the backward pass has still to come to
  bool ended_ = false;
  bool inside_ = false;                // it is at the stop `ahead_`, whose units are in use
  std::map<size_t, int64_t> to_come_;  // of each unit the stops that are not left yet
  nn::Units waiting_;                  // units with gradients of weights that were put off
};

}  // namespace qianli::train
