#include "qianli/ops/deferred_gradients.h"

#include <ATen/core/grad_mode.h>

#include <utility>

namespace qianli::ops {
namespace {

constexpr const char* kKey = "deferred";

thread_local DeferredGradients::Pointer recorded_into;

// Null: none.
DeferredGradients::Pointer kept_by(torch::autograd::AutogradContext* context) {
  const auto found = context->saved_data.find(kKey);
  if (found == context->saved_data.end()) return {};
  return c10::static_intrusive_pointer_cast<DeferredGradients>(found->second.toCapsule());
}

}  // namespace

void DeferredGradients::add(std::function<void()> compute) {
  if (defers_) {
    waiting_.push_back(std::move(compute));
  } else {
    compute();
  }
}

void DeferredGradients::run() {
  const at::NoGradGuard no_grad;
  for (auto& compute : std::exchange(waiting_, {})) {
    compute();
    compute = nullptr;  // frees its tensors before the next one takes memory
  }
}

const DeferredGradients::Pointer& DeferredGradients::current() { return recorded_into; }

DeferredGradients::Recording::Recording(Pointer gradients)
    : before_(std::exchange(recorded_into, std::move(gradients))) {}

DeferredGradients::Recording::~Recording() { recorded_into = std::move(before_); }

void remember_deferred(torch::autograd::AutogradContext* context) {
  if (recorded_into) context->saved_data[kKey] = c10::IValue::make_capsule(recorded_into);
}

bool is_deferred(torch::autograd::AutogradContext* context) {
  const auto kept = kept_by(context);
  return kept && kept->defers();
}

void add_deferred(torch::autograd::AutogradContext* context, std::function<void()> compute) {
  const auto kept = kept_by(context);
  if (!kept) return compute();
  kept->add(std::move(compute));
}

}  // namespace qianli::ops
