#include "qianli/train/stage_links.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

namespace qianli::train {
namespace {

// [tensors, then of each: dtype or -1, axes, sizes …]
constexpr int64_t kMostTensors = 8, kMostAxes = 4, kNumbersOfForm = 2 + kMostAxes;
static_assert(StageLinks::kFormBytes == 8 * (1 + kMostTensors * kNumbersOfForm));

// Of one edge; a send waits for the one so many before it. Programs without deadlock stay so even
// where each message waits until it is received, so waiting for an older one is safe.
constexpr size_t kMostLeaving = 16;

// On the host: the receiver reads it there.
at::Tensor told(const Forms& forms) {
  TORCH_CHECK(static_cast<int64_t>(forms.size()) <= kMostTensors, "[pipeline] expected at most ",
              kMostTensors, " tensors on an edge, got ", forms.size());
  const at::Tensor numbers = at::full({1 + kMostTensors * kNumbersOfForm}, -1, at::kLong);
  int64_t* next = numbers.data_ptr<int64_t>();
  *next++ = static_cast<int64_t>(forms.size());
  for (const auto& form : forms) {
    if (form) {
      TORCH_CHECK(static_cast<int64_t>(form->sizes.size()) <= kMostAxes,
                  "[pipeline] expected at most ", kMostAxes, " axes, got ", form->sizes.size());
      next[0] = static_cast<int64_t>(form->dtype);
      next[1] = static_cast<int64_t>(form->sizes.size());
      std::copy(form->sizes.begin(), form->sizes.end(), next + 2);
    }
    next += kNumbersOfForm;
  }
  return numbers;
}

Forms heard(const at::Tensor& numbers) {
  const int64_t* next = numbers.data_ptr<int64_t>();
  Forms forms(static_cast<size_t>(*next++));
  for (auto& form : forms) {
    if (next[0] >= 0) {
      form = Form{.sizes = {next + 2, next + 2 + next[1]},
                  .dtype = static_cast<at::ScalarType>(next[0])};
    }
    next += kNumbersOfForm;
  }
  return forms;
}

}  // namespace

Forms forms_of(const Tensors& tensors) {
  Forms forms;
  for (const at::Tensor& tensor : tensors) {
    forms.emplace_back();
    if (tensor.defined())
      forms.back() = Form{.sizes = tensor.sizes().vec(), .dtype = tensor.scalar_type()};
  }
  return forms;
}

class StageLinks::Arriving {
 public:
  Arriving(const StageLinks& links, const Link& link) : links_(links), link_(link) {}

  void start(const Forms& forms) {
    for (const auto& form : forms) {
      tensors_.emplace_back();
      if (!form) continue;
      tensors_.back() =
          at::empty(form->sizes, at::TensorOptions().dtype(form->dtype).device(links_.device_));
      if (tensors_.back().numel() > 0) pending_.push_back(receive(tensors_.back()));
    }
  }

  // `forms` get what the sender tells.
  void start_untold(Forms& forms) {
    forms_ = &forms;
    told_ = at::empty({kFormBytes / 8}, at::kLong);
    pending_.push_back(receive(told_));
  }

  void learn_forms() {
    if (!forms_) return;
    pending_.back().wait();
    pending_.clear();
    *forms_ = heard(told_);
    start(*std::exchange(forms_, nullptr));
  }

  Tensors wait() {
    learn_forms();
    for (dist::Pending& each : pending_) each.wait();
    return std::move(tensors_);
  }

 private:
  dist::Pending receive(const at::Tensor& tensor) const {
    return links_.stages_.start_receive(tensor, link_.peer, link_.edge);
  }

  const StageLinks& links_;
  Link link_;
  Forms* forms_ = nullptr;  // not yet known
  at::Tensor told_;
  Tensors tensors_;
  std::vector<dist::Pending> pending_;
};

void StageLinks::start_send(const at::Tensor& tensor, const Link& link) {
  auto& leaving = leaving_[link.edge];
  if (leaving.size() == kMostLeaving) {
    leaving.front().wait();
    leaving.pop_front();
  }
  leaving.push_back(stages_.start_send(tensor.contiguous(), link.peer, link.edge));
}

void StageLinks::send(const Tensors& tensors, const Link& link, int64_t kind) {
  const Forms forms = forms_of(tensors);
  const auto [known, first] = sent_.try_emplace({link.edge, kind}, forms);
  if (first) start_send(told(forms), link);
  for (size_t i = 0; i < forms.size(); ++i) {
    const auto& before = known->second.at(i);
    TORCH_CHECK(
        before.has_value() == forms[i].has_value() && (!before || before->sizes == forms[i]->sizes),
        "[pipeline] expected tensors of the shapes first sent for the kind ", kind);
  }
  send(tensors, link);
}

void StageLinks::send(const Tensors& tensors, const Link& link) {
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined() && tensor.numel() > 0) start_send(tensor, link);
  }
}

void StageLinks::ask_for_earlier(int64_t peer) {
  const auto before = untold_.find(peer);
  if (before == untold_.end()) return;
  before->second->learn_forms();
  untold_.erase(before);
}

StageLinks::Arrival StageLinks::receive(const Link& link, int64_t kind) {
  auto arrival = std::make_shared<Arriving>(*this, link);
  ask_for_earlier(link.peer);
  const auto [known, first] = received_.try_emplace({link.edge, kind});
  if (!first) {
    arrival->start(known->second);
  } else {
    arrival->start_untold(known->second);
    untold_[link.peer] = arrival;
  }
  return arrival;
}

StageLinks::Arrival StageLinks::receive(const Link& link, const Forms& forms) {
  ask_for_earlier(link.peer);
  auto arrival = std::make_shared<Arriving>(*this, link);
  arrival->start(forms);
  return arrival;
}

Tensors StageLinks::wait(const Arrival& arrival) { return arrival->wait(); }

void StageLinks::finish() {
  for (auto& [edge, leaving] : leaving_) {
    for (dist::Pending& each : leaving) each.wait();
  }
  leaving_.clear();
  untold_.clear();
}

}  // namespace qianli::train
