// Weight gradients that are computed later than the input gradients they belong to: schedules
// without bubbles send an input's gradient on before they look at the weights.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <functional>
#include <vector>

namespace qianli::ops {

// Of one unit of work: ops recorded while it is current() hand it their weight gradients.
class DeferredGradients : public torch::CustomClassHolder {
 public:
  using Pointer = c10::intrusive_ptr<DeferredGradients>;

  // From now on add() keeps what it is given.
  void defer() { defers_ = true; }
  bool defers() const { return defers_; }
  // Runs `compute` at once, or keeps it until run(). It holds the tensors that it needs, detached.
  void add(std::function<void()> compute);
  // Computes all that was kept, in the order of add(), and forgets it.
  void run();
  size_t waiting() const { return waiting_.size(); }

  // Of the innermost Recording on this thread; null: none, gradients are computed at once.
  static const Pointer& current();

  // While it lives, ops recorded on this thread belong to `gradients` (null: to none). Their
  // backward pass may run on any thread.
  class Recording {
   public:
    explicit Recording(Pointer gradients);
    ~Recording();
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;

   private:
    Pointer before_;
  };

 private:
  bool defers_ = false;
  std::vector<std::function<void()>> waiting_;
};

// In an op's forward: its backward will find the current one.
void remember_deferred(torch::autograd::AutogradContext* context);
// In its backward: whether add_deferred() keeps what it is given for later.
bool is_deferred(torch::autograd::AutogradContext* context);
// In its backward: `compute` runs now or later.
void add_deferred(torch::autograd::AutogradContext* context, std::function<void()> compute);

}  // namespace qianli::ops
