#include "qianli/nn/visiting_keys.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "qianli/plan/ring_order.h"

namespace qianli::nn {
namespace {

constexpr int64_t kKeysTag = 0, kGradientsTag = 1;

at::TensorOptions wide(const at::TensorOptions& options) {
  return options.dtype(options.dtype() == at::kDouble ? at::kDouble : at::kFloat);
}

// The keys of visits as messages bring them, or as an earlier pass left them.
class Blocks {
 public:
  Blocks(const at::Tensor& k, const at::Tensor& v, Pass pass, KeysLeft& left)
      : left_(left),
        backward_(pass == Pass::kBackward),
        heads_(k.size(1)),
        key_dim_(k.size(2)),
        own_(packed_keys(k, v)) {}

  bool backward() const { return backward_; }
  int64_t columns() const { return own_.size(1); }
  at::TensorOptions options() const { return own_.options(); }
  // Nothing is sent where all is here already.
  bool complete() const { return backward_ && left_.what == data::KeptKeys::kAll; }
  // What a place sends of its own: everything, or values where the others have kept the keys.
  at::Tensor own_message() const {
    return values_only() ? own_.narrow(1, heads_ * key_dim_, message_columns()).contiguous() : own_;
  }
  int64_t message_columns() const {
    return values_only() ? columns() - heads_ * key_dim_ : columns();
  }
  KeysAndValues own() const { return unpacked_keys(own_, heads_, key_dim_); }

  // Of visit i, of which `message` came (undefined where all was here).
  KeysAndValues of(size_t i, const at::Tensor& message) {
    if (complete()) return unpacked_keys(left_.blocks[i], heads_, key_dim_);
    if (values_only()) return {left_.blocks[i], message.unflatten(1, {heads_, -1})};
    const KeysAndValues block = unpacked_keys(message, heads_, key_dim_);
    if (!backward_ && left_.what != data::KeptKeys::kNone) {
      left_.blocks.resize(i + 1);
      left_.blocks[i] = left_.what == data::KeptKeys::kAll ? message : block.k.contiguous();
    }
    return block;
  }

 private:
  bool values_only() const { return backward_ && left_.what == data::KeptKeys::kKeys; }

  KeysLeft& left_;
  bool backward_;
  int64_t heads_, key_dim_;
  at::Tensor own_;
};

// Keys go round the places; gradients of a block follow it and reach its owner after the last step.
class RingKeys : public VisitingKeys {
 public:
  RingKeys(Blocks keys, const data::ContextDeal& deal, const dist::Group& ring)
      : keys_(std::move(keys)),
        deal_(deal),
        ring_(ring),
        order_{ring.size(), std::min(deal.options().window, ring.size())},
        place_(ring.rank()),
        messages_(static_cast<size_t>(ring.size())),
        arrivals_(messages_.size()),
        gradients_(messages_.size() + 1),
        gradient_arrivals_(gradients_.size()) {
    messages_[0] = keys_.own_message();
  }

  int64_t visits() const override { return order_.places; }

  KeyBlock visit(int64_t step) override {
    const auto now = static_cast<size_t>(step);
    arrivals_[now].wait();
    wait_for_sent(step);
    if (!keys_.complete()) start_keys(step);
    if (keys_.backward()) start_gradients(step);
    const KeysAndValues keys = step == 0 ? keys_.own() : keys_.of(now, messages_[now]);
    if (step > 0) messages_[now - 1] = at::Tensor();
    return {keys.k, keys.v, deal_.parts(order_.owner(place_, step))};
  }

  void give(int64_t step, at::Tensor gradient) override {
    const auto now = static_cast<size_t>(step);
    if (step > 0) {
      gradient_arrivals_[now].wait();
      gradient.add_(gradients_[now]);
      gradients_[now] = at::Tensor();
    }
    if (order_.places == 1) {
      gradients_.back() = gradient;
      return;
    }
    const int64_t owner = order_.owner(place_, step);
    const int64_t next = step + 1 < visits() ? order_.place_of(owner, step + 1) : owner;
    sent_.push_back({step + 1, ring_.start_send(gradient, next, kGradientsTag)});
  }

  at::Tensor finish() override {
    gradient_arrivals_.back().wait();
    wait_for_sent(visits() + order_.window);
    return gradients_.back();
  }

 private:
  // What begins with this step: the block goes on inside its window and, when it has just come into
  // the window, to the next one.
  void start_keys(int64_t step) {
    const int64_t window = order_.window;
    if ((step + 1) % window != 0) {
      send_keys(step, step + 1, place_ / window * window + (place_ + 1) % window);
      receive_keys(step + 1);
    }
    if (step % window == 0 && step + window < visits()) {
      send_keys(step, step + window, (place_ + window) % order_.places);
      receive_keys(step + window);
    }
  }
  void send_keys(int64_t step, int64_t due, int64_t to) {
    sent_.push_back({due, ring_.start_send(messages_[static_cast<size_t>(step)], to, kKeysTag)});
  }
  // Ends what has to be gone by this step, and lets go of its memory.
  void wait_for_sent(int64_t step) {
    for (auto& sent : sent_) {
      if (sent.due <= step) sent.pending.wait();
    }
    std::erase_if(sent_, [&](const Sent& sent) { return sent.due <= step; });
  }
  void receive_keys(int64_t step) {
    const auto at = static_cast<size_t>(step);
    messages_[at] = at::empty({deal_.rows(order_.owner(place_, step)), keys_.message_columns()},
                              keys_.options());
    arrivals_[at] = ring_.start_receive(messages_[at], order_.source(place_, step).place, kKeysTag);
  }
  // The sum that the next step adds to; behind the last one, this place's own.
  void start_gradients(int64_t step) {
    if (order_.places == 1) return;
    const bool last = step + 1 == visits();
    const int64_t owner = last ? place_ : order_.owner(place_, step + 1);
    const auto at = static_cast<size_t>(step + 1);
    gradients_[at] = at::empty({deal_.rows(owner), keys_.columns()}, wide(keys_.options()));
    gradient_arrivals_[at] =
        ring_.start_receive(gradients_[at], order_.place_of(owner, step), kGradientsTag);
  }

  struct Sent {
    int64_t due;  // the step before which it has to be gone
    dist::Pending pending;
  };

  Blocks keys_;
  const data::ContextDeal& deal_;
  dist::Group ring_;
  plan::RingOrder order_;
  int64_t place_;
  std::vector<at::Tensor> messages_;  // by step; given up when the next one is here
  std::vector<dist::Pending> arrivals_;
  std::vector<Sent> sent_;
  std::vector<at::Tensor> gradients_;  // by step, the last one of this place's own keys
  std::vector<dist::Pending> gradient_arrivals_;
};

// All keys at once, in the order of the tokens.
class GatheredKeys : public VisitingKeys {
 public:
  GatheredKeys(Blocks keys, const data::ContextDeal& deal, const dist::Group& ring)
      : keys_(std::move(keys)), ring_(ring), parts_{deal.whole()}, rows_(deal.rows(ring.rank())) {
    for (int64_t place = 0; place < ring.size(); ++place)
      most_rows_ = std::max(most_rows_, deal.rows(place));
    // Places have as many rows as the fullest one in the message.
    std::vector<int64_t> gathered_row(static_cast<size_t>(deal.tokens()));
    for (int64_t place = 0; place < ring.size(); ++place) {
      int64_t row = place * most_rows_;
      for (const int64_t token : deal.tokens_of_place(place))
        gathered_row[static_cast<size_t>(token)] = row++;
    }
    order_ = at::tensor(gathered_row, at::kLong).to(keys_.options().device());
  }

  int64_t visits() const override { return 1; }

  KeyBlock visit(int64_t) override {
    at::Tensor all;
    if (!keys_.complete()) {
      at::Tensor own = at::zeros({most_rows_, keys_.message_columns()}, keys_.options());
      own.narrow(0, 0, rows_).copy_(keys_.own_message());
      all = ring_.all_gather(own).index_select(0, order_);
    }
    const KeysAndValues keys = keys_.of(0, all);
    return {keys.k, keys.v, parts_};
  }

  void give(int64_t, at::Tensor gradient) override {
    const at::Tensor by_place =
        at::zeros({most_rows_ * ring_.size(), gradient.size(1)}, gradient.options())
            .index_copy_(0, order_, gradient);
    own_gradient_ = ring_.reduce_scatter(by_place).narrow(0, 0, rows_);
  }
  at::Tensor finish() override { return own_gradient_; }

 private:
  Blocks keys_;
  dist::Group ring_;
  std::vector<data::ContextPart> parts_;
  int64_t rows_, most_rows_ = 0;
  at::Tensor order_;  // [tokens]: where each is among the gathered rows
  at::Tensor own_gradient_;
};

}  // namespace

at::Tensor packed_keys(const at::Tensor& k, const at::Tensor& v) {
  return at::cat({k.reshape({k.size(0), -1}), v.reshape({v.size(0), -1})}, 1);
}

KeysAndValues unpacked_keys(const at::Tensor& packed, int64_t heads, int64_t key_dim) {
  const int64_t columns = heads * key_dim;
  return {packed.narrow(1, 0, columns).unflatten(1, {heads, key_dim}),
          packed.narrow(1, columns, packed.size(1) - columns).unflatten(1, {heads, -1})};
}

std::unique_ptr<VisitingKeys> visiting_keys(const at::Tensor& k, const at::Tensor& v,
                                            const data::ContextDeal& deal, const dist::Group& ring,
                                            Pass pass, KeysLeft& left) {
  Blocks keys(k, v, pass, left);
  if (deal.options().algorithm == data::ContextAlgorithm::kKvAllGather)
    return std::make_unique<GatheredKeys>(std::move(keys), deal, ring);
  return std::make_unique<RingKeys>(std::move(keys), deal, ring);
}

}  // namespace qianli::nn
