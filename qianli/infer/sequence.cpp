#include "qianli/infer/sequence.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/progress.h"
#include "qianli/base/threads.h"

namespace qianli::infer {
namespace {

int64_t checked_capacity(const Model& model, int64_t capacity) {
  const model::ModelSpec& spec = model.spec();
  const auto bytes = static_cast<double>(nn::KvCache::elements_per_token(spec)) *
                         static_cast<double>(c10::elementSize(model.dtype())) *
                         static_cast<double>(capacity) +
                     static_cast<double>(nn::KvCache::fixed_bytes(spec, model.dtype()));
  const uint64_t available = available_memory_bytes();
  if (model.device().is_cpu() && bytes > static_cast<double>(available)) {
    throw MemoryError("kv_cache",
                      fmt::format("expected at most {} for {} tokens, needs {:.1f} GB",
                                  human_bytes(available), capacity, bytes / 1e9),
                      "ask for fewer tokens");
  }
  return capacity;
}

}  // namespace

Sequence::Sequence(Model& model, int64_t capacity, int64_t prompt_length, int64_t adapter)
    : model_(model),
      prompt_length_(prompt_length),
      adapter_(adapter),
      cache_(model.spec(), checked_capacity(model, capacity), model.dtype(), model.device()),
      positions_(
          at::arange(capacity, at::TensorOptions().dtype(at::kLong).device(model.device()))) {}

void Sequence::append(std::span<const int64_t> ids) {
  if (ids.empty()) return;
  const at::NoGradGuard no_grad;
  const auto count = static_cast<int64_t>(ids.size());
  const int64_t first = cache_.length();
  if (first + count > cache_.capacity()) {
    throw MemoryError("kv_cache", fmt::format("expected at most {} tokens, got {}",
                                              cache_.capacity(), first + count));
  }
  at::Tensor tokens = at::empty({count}, at::kLong);
  std::copy(ids.begin(), ids.end(), tokens.data_ptr<int64_t>());
  hidden_ = model_.decoder().forward({.tokens = tokens.to(model_.device()),
                                      .positions = positions_.narrow(0, first, count),
                                      .max_position = std::max(first + count, prompt_length_) - 1,
                                      .segment_starts = {0, count},
                                      .cache = &cache_,
                                      .adapters = nn::same_adapter(adapter_, count)});
}

at::Tensor Sequence::logits() {
  const at::NoGradGuard no_grad;
  const at::Tensor last = hidden_.narrow(0, hidden_.size(0) - 1, 1);
  return model_.decoder().logits(last).view({-1}).to(at::kCPU, at::kFloat);
}

}  // namespace qianli::infer
