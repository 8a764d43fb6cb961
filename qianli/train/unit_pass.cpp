#include "qianli/train/unit_pass.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

namespace qianli::train {

void UnitPass::before_forward(const nn::Units& units) { optimizer_.gathering().use(units); }

void UnitPass::after_forward(const nn::Units& units, const std::vector<at::Tensor>& outputs) {
  optimizer_.gathering().let_go(units);
  if (!at::GradMode::is_enabled()) return;
  const size_t stop = stops_.size();
  stops_.push_back(units);
  for (const size_t unit : units) ++to_come_[unit];
  // Autograd runs the nodes made last first. So when an output gets its gradient, all that was
  // computed behind the stop is done; and the first node before that belongs to an output.
  for (const at::Tensor& output : outputs) {
    if (!output.defined() || !output.requires_grad()) continue;
    output.register_hook([self = shared_from_this(), stop](const at::Tensor&) {
      // What an earlier stop has made may be an output of this one, too.
      if (!self->ahead_ || stop < *self->ahead_) self->come_to(stop);
    });
  }
}

void UnitPass::come_to(std::optional<size_t> stop) {
  const size_t next = stop ? *stop + 1 : 0;
  const size_t begin = ahead_ ? *ahead_ + (inside_ ? 1 : 0) : stops_.size();
  if (inside_) optimizer_.gathering().let_go(stops_[*ahead_]);
  for (size_t left = begin; left-- > next;) {
    for (const size_t unit : stops_[left]) {
      if (--to_come_[unit] == 0) hand_over(unit);
    }
  }
  ahead_ = stop.value_or(0);
  inside_ = stop.has_value();
  if (stop) optimizer_.gathering().use(stops_[*stop]);
}

void UnitPass::hand_over(size_t unit) {
  if (deferred_ && deferred_->waiting() > 0) {
    waiting_.push_back(unit);
    return;
  }
  optimizer_.gradients_added(unit);
  if (std::ranges::find(completes_, unit) != completes_.end())
    optimizer_.gradients_are_final({unit});
}

void UnitPass::end_backward() {
  if (!ended_) come_to({});
  ended_ = true;
  if (deferred_ && deferred_->waiting() > 0) return;
  for (const size_t unit : std::exchange(waiting_, {})) hand_over(unit);
}

}  // namespace qianli::train
