#include "tests/support/ordered_transport.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <condition_variable>
#include <deque>
#include <future>
#include <thread>

#include "qianli/dist/gloo_backend.h"

namespace qianli::testing {
namespace {

using Record = OrderedTransport::Record;
using Wait = OrderedTransport::Wait;
using Tensors = std::vector<at::Tensor>;

class OrderedWork : public c10d::Work {
 public:
  OrderedWork(std::chrono::milliseconds deadline, Wait wait)
      : done_(promise_.get_future()), deadline_(deadline), wait_(wait) {}
  void run(const std::function<void()>& operation) {
    try {
      operation();
      promise_.set_value();
    } catch (...) {
      promise_.set_exception(std::current_exception());
    }
  }
  bool isCompleted() override {
    return done_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
  bool wait(std::chrono::milliseconds) override {
    if (wait_ == Wait::kReturns) return true;
    if (done_.wait_for(deadline_) != std::future_status::ready)
      throw std::runtime_error("the stream does not come past it");
    done_.get();
    return true;
  }

 private:
  std::promise<void> promise_;
  std::shared_future<void> done_;
  std::chrono::milliseconds deadline_;
  Wait wait_;
};

// Operations run one after the other on a thread, the stream.
class OrderedBackend : public c10d::Backend {
 public:
  OrderedBackend(const dist::Communicator& communicator, std::shared_ptr<Record> record,
                 std::chrono::milliseconds deadline, Wait wait)
      : Backend(static_cast<int>(communicator.rank), static_cast<int>(communicator.size)),
        name_(communicator.name),
        is_route_(communicator.is_route),
        record_(std::move(record)),
        deadline_(deadline),
        wait_(wait),
        gloo_(dist::gloo_backend(communicator.store, communicator.rank, communicator.size,
                                 /*loopback=*/true, deadline)),
        stream_([this] { run(); }) {}
  ~OrderedBackend() override {
    push({});
    stream_.join();
  }

  const std::string getBackendName() const override { return "ordered"; }
  void abort() override {
    const std::lock_guard lock(record_->mutex);
    ++record_->aborted;
  }

  c10::intrusive_ptr<c10d::Work> allreduce(Tensors& tensors,
                                           const c10d::AllreduceOptions& options) override {
    return collective("all_reduce", tensors.front().numel(), tensors,
                      [=](c10d::Backend& gloo, Tensors& t) { return gloo.allreduce(t, options); });
  }
  c10::intrusive_ptr<c10d::Work> broadcast(Tensors& tensors,
                                           const c10d::BroadcastOptions& options) override {
    return collective("broadcast", tensors.front().numel(), tensors,
                      [=](c10d::Backend& gloo, Tensors& t) { return gloo.broadcast(t, options); });
  }
  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor& whole, at::Tensor& part,
                                                 const c10d::AllgatherOptions&) override {
    return collective(
        "all_gather", part.numel(), {whole, part},
        [](c10d::Backend& gloo, Tensors& t) { return gloo._allgather_base(t[0], t[1]); });
  }
  c10::intrusive_ptr<c10d::Work> _reduce_scatter_base(
      at::Tensor& part, at::Tensor& whole, const c10d::ReduceScatterOptions& options) override {
    return collective("reduce_scatter", part.numel(), {part, whole},
                      [=](c10d::Backend& gloo, Tensors& t) {
                        return gloo._reduce_scatter_base(t[0], t[1], options);
                      });
  }
  c10::intrusive_ptr<c10d::Work> alltoall_base(at::Tensor& out, at::Tensor& in,
                                               std::vector<int64_t>& received,
                                               std::vector<int64_t>& sent,
                                               const c10d::AllToAllOptions&) override {
    return collective("all_to_all", 0, {out, in},
                      [received, sent](c10d::Backend& gloo, Tensors& t) mutable {
                        return gloo.alltoall_base(t[0], t[1], received, sent);
                      });
  }
  c10::intrusive_ptr<c10d::Work> send(Tensors& tensors, int peer, int) override {
    return message("send", tensors, peer, [this](at::Tensor form, at::Tensor values) {
      exchange(form, /*sends=*/true);
      exchange(values, true);
      exchange(at::empty({1}), false);
    });
  }
  c10::intrusive_ptr<c10d::Work> recv(Tensors& tensors, int peer, int) override {
    return message("receive", tensors, peer, [this](at::Tensor form, at::Tensor values) {
      at::Tensor sent = at::empty_like(form);
      exchange(sent, false);
      if (!sent.equal(form)) {
        break_rule(fmt::format("{}: a message of {} numbers of type {} is received as {} of {}",
                               name_, sent[0].item<int64_t>(), sent[1].item<int64_t>(),
                               form[0].item<int64_t>(), form[1].item<int64_t>()));
      }
      exchange(values, false);
      exchange(at::ones({1}), true);
    });
  }

 private:
  template <class Start>
  c10::intrusive_ptr<c10d::Work> collective(std::string what, int64_t numbers, Tensors tensors,
                                            Start start) {
    if (is_route_) break_rule(name_ + ": a collective on a route");
    const auto kind = static_cast<int64_t>(std::hash<std::string>()(what) >> 1);
    return enqueue([=, this]() mutable {
      const auto type = static_cast<int64_t>(tensors.front().scalar_type());
      at::Tensor own = at::tensor({kind, numbers, type}, at::kLong);
      at::Tensor all = at::empty({3 * getSize()}, at::kLong);
      gloo_->_allgather_base(all, own)->wait();
      for (const at::Tensor& other : all.view({-1, 3}).unbind()) {
        if (!other.equal(own))
          break_rule(fmt::format("{}: {} of {} numbers on rank {} meets another operation", name_,
                                 what, numbers, getRank()));
      }
      start(*gloo_, tensors)->wait();
    });
  }

  template <class Body>
  c10::intrusive_ptr<c10d::Work> message(const char* what, const Tensors& tensors, int peer,
                                         Body body) {
    const bool sends = getRank() == 0;
    if (!is_route_ || peer != (sends ? 1 : 0) || sends != (std::string(what) == "send"))
      break_rule(fmt::format("{}: {} of rank {} with {}", name_, what, getRank(), peer));
    const at::Tensor values = tensors.front();
    const at::Tensor form =
        at::tensor({values.numel(), static_cast<int64_t>(values.scalar_type())}, at::kLong);
    return enqueue([=] { body(form, values); });
  }

  void exchange(at::Tensor values, bool sends) {
    Tensors tensors = {std::move(values)};
    const int peer = 1 - getRank();
    (sends ? gloo_->send(tensors, peer, 0) : gloo_->recv(tensors, peer, 0))->wait();
  }

  [[noreturn]] void break_rule(const std::string& how) {
    {
      const std::lock_guard lock(record_->mutex);
      record_->broken.push_back(how);
    }
    throw std::runtime_error(how);
  }

  c10::intrusive_ptr<c10d::Work> enqueue(std::function<void()> operation) {
    auto work = c10::make_intrusive<OrderedWork>(deadline_, wait_);
    {
      const std::lock_guard lock(record_->mutex);
      ++record_->operations;
    }
    push([work, operation = std::move(operation)] { work->run(operation); });
    return work;
  }
  void push(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    changed_.notify_all();
  }
  void run() {
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return !tasks_.empty(); });
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      if (!task) return;
      task();
    }
  }

  const std::string name_;
  const bool is_route_;
  std::shared_ptr<Record> record_;
  const std::chrono::milliseconds deadline_;
  const Wait wait_;
  c10::intrusive_ptr<c10d::Backend> gloo_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::thread stream_;
};

}  // namespace

bool OrderedTransport::takes(const at::Tensor& tensor) const {
  return at::isFloatingType(tensor.scalar_type());
}

c10::intrusive_ptr<c10d::Backend> OrderedTransport::open(
    const dist::Communicator& communicator) const {
  {
    const std::lock_guard lock(record_->mutex);
    record_->opened.push_back(communicator);
    record_->opened.back().store = {};
  }
  return c10::make_intrusive<OrderedBackend>(communicator, record_, deadline_, wait_);
}

at::Tensor OrderedTransport::token() const { return at::ones({1}); }

std::function<bool()> OrderedTransport::mark(const c10::intrusive_ptr<c10d::Work>& work) const {
  return [work] { return work->isCompleted(); };
}

std::vector<std::string> OrderedTransport::broken_rules() const {
  const std::lock_guard lock(record_->mutex);
  return record_->broken;
}

int64_t OrderedTransport::operations() const {
  const std::lock_guard lock(record_->mutex);
  return record_->operations;
}

std::vector<dist::Communicator> OrderedTransport::opened() const {
  const std::lock_guard lock(record_->mutex);
  return record_->opened;
}

int64_t OrderedTransport::aborted() const {
  const std::lock_guard lock(record_->mutex);
  return record_->aborted;
}

}  // namespace qianli::testing
