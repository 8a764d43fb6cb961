#include "qianli/dist/group.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <functional>
#include <numeric>

#include "qianli/base/trace.h"
#include "qianli/dist/group_state.h"
#include "qianli/dist/under_way.h"

namespace qianli::dist {
namespace {

thread_local int64_t started_and_not_awaited = 0;

c10d::ReduceOp::RedOpType operation(Reduction reduction) {
  switch (reduction) {
    case Reduction::kSum:
      return c10d::ReduceOp::SUM;
    case Reduction::kAverage:
      return c10d::ReduceOp::AVG;
    case Reduction::kMax:
      return c10d::ReduceOp::MAX;
    case Reduction::kMin:
      return c10d::ReduceOp::MIN;
  }
  return c10d::ReduceOp::SUM;
}

double bytes_of(const at::Tensor& values) { return static_cast<double>(values.nbytes()); }

// The first sentence of what c10d says, without the places in its sources around it.
std::string first_line(const std::string& text) {
  const size_t begin = text.starts_with("[/") ? text.find("] ") : text.npos;
  const size_t first = begin == text.npos ? 0 : begin + 2;
  return text.substr(first, text.find('\n') - first);
}

}  // namespace

int64_t under_way() { return started_and_not_awaited; }

struct Pending::State {
  State() { ++started_and_not_awaited; }
  ~State() { --started_and_not_awaited; }  // at the end of wait(), or with the Pending
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  std::shared_ptr<Group::State> group;
  std::string what;
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<at::Tensor> tensors;
  std::function<void()> waited;  // of a trace; may be empty

  std::string where() const { return fmt::format("{} of {}", group->name, name_of(group->ranks)); }
  [[noreturn]] void fail(const std::string& reason) const {
    throw LostRankError(
        fmt::format("expected {} on rank {} ({}) to end within {:g} s, got: {} ({})", what,
                    group->ranks[static_cast<size_t>(group->rank)], where(),
                    std::chrono::duration<double>(group->deadline).count(), reason,
                    group->activity->of_all()),
        "look at the rank that does something else or is not heard of; its own log says more");
  }
};

// Shows how long it is on its way, whoever waits for it. Of works that do not say when they have
// ended (Gloo's reduce_scatter): until it is waited for, by the function returned.
std::function<void()> record(c10d::Work& work, std::string name) {
  trace::Recorder* to = trace::recorder();
  if (!to) return {};
  c10::intrusive_ptr<c10::ivalue::Future> future;
  try {
    future = work.getFuture();
  } catch (const c10::Error&) {
    return to->travel(std::move(name));
  }
  if (!future) return {};
  future->addCallback([end = to->travel(std::move(name))](c10::ivalue::Future&) { end(); });
  return {};
}

void Pending::wait() {
  if (!state_) return;
  const auto state = std::move(state_);
  const Group::State& group = *state->group;
  const Activity::Waiting waiting(group.activity.get(),
                                  fmt::format("{} of {}", state->what, state->where()));
  try {
    if (group.patience == Patience::kDeadline) {
      state->work->wait();
    } else {
      group.activity->wait_while_heard(group.ranks, group.deadline,
                                       [state] { state->work->wait(); });
    }
  } catch (const std::exception& error) {
    state->fail(first_line(error.what()));
  }
  if (state->waited) state->waited();
}

Group::Group() : state_(std::make_shared<State>()) {}

int64_t Group::rank() const { return state_->rank; }
int64_t Group::size() const { return static_cast<int64_t>(state_->ranks.size()); }
const std::vector<int64_t>& Group::ranks() const { return state_->ranks; }
const std::string& Group::name() const { return state_->name; }

Traffic Group::traffic() const {
  const std::lock_guard lock(state_->mutex);
  return state_->traffic;
}

template <class Start>
Pending Group::start(const char* what, const at::Tensor& values, double bytes,
                     const Start& start) const {
  TORCH_CHECK(values.is_contiguous(), "[dist] expected a contiguous tensor for ", what,
              ", got strides ", values.strides(), " of ", values.sizes());
  int64_t number = 0;
  {
    const std::lock_guard lock(state_->mutex);
    number = ++state_->traffic.collectives;
    state_->traffic.bytes += bytes;
  }
  auto pending = std::make_shared<Pending::State>();
  pending->group = state_;
  pending->what = fmt::format("{} {} of {} [{}]", what, number, toString(values.scalar_type()),
                              fmt::join(values.sizes(), ", "));
  try {
    pending->work = start(*state_->backend, pending->tensors);
    pending->waited = record(
        *pending->work, fmt::format("{} {} ({} KiB)", what, state_->name, values.nbytes() >> 10));
  } catch (const std::exception& error) {
    pending->fail(first_line(error.what()));
  }
  return Pending(std::move(pending));
}

void Group::all_reduce(const at::Tensor& values, Reduction reduction) const {
  start_all_reduce(values, reduction).wait();
}

Pending Group::start_all_reduce(const at::Tensor& values, Reduction reduction) const {
  if (alone() || values.numel() == 0) return {};
  const auto k = static_cast<double>(size());
  return start("all_reduce", values, 2 * bytes_of(values) * (k - 1) / k,
               [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
                 tensors = {values};
                 c10d::AllreduceOptions options;
                 options.reduceOp = operation(reduction);
                 return backend.allreduce(tensors, options);
               });
}

at::Tensor Group::all_gather(const at::Tensor& part) const {
  if (alone()) return part;
  auto sizes = part.sizes().vec();
  sizes[0] *= size();
  const at::Tensor whole = at::empty(sizes, part.options());
  start_all_gather(whole, part).wait();
  return whole;
}

Pending Group::start_all_gather(const at::Tensor& whole, const at::Tensor& part) const {
  TORCH_CHECK(whole.numel() == part.numel() * size(), "[dist] expected all_gather into ", size(),
              " times ", part.sizes(), ", got ", whole.sizes());
  if (alone()) {
    whole.view(part.sizes()).copy_(part);
    return {};
  }
  if (part.numel() == 0) return {};
  const auto k = static_cast<double>(size());
  return start("all_gather", part, bytes_of(part) * (k - 1),
               [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
                 tensors = {whole, part};
                 return backend._allgather_base(tensors[0], tensors[1]);
               });
}

at::Tensor Group::reduce_scatter(const at::Tensor& whole, Reduction reduction) const {
  if (alone()) return whole;
  auto sizes = whole.sizes().vec();
  TORCH_CHECK(sizes[0] % size() == 0, "[dist] expected rows that ", size(),
              " ranks can share evenly for reduce_scatter, got ", sizes[0]);
  sizes[0] /= size();
  const at::Tensor part = at::empty(sizes, whole.options());
  start_reduce_scatter(part, whole, reduction).wait();
  return part;
}

Pending Group::start_reduce_scatter(const at::Tensor& part, const at::Tensor& whole,
                                    Reduction reduction) const {
  TORCH_CHECK(whole.numel() == part.numel() * size(), "[dist] expected reduce_scatter of ", size(),
              " times ", part.sizes(), ", got ", whole.sizes());
  if (alone()) {
    part.copy_(whole.view(part.sizes()));
    return {};
  }
  if (part.numel() == 0) return {};
  const auto k = static_cast<double>(size());
  return start("reduce_scatter", whole, bytes_of(whole) * (k - 1) / k,
               [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
                 tensors = {part, whole};
                 c10d::ReduceScatterOptions options;
                 options.reduceOp = operation(reduction);
                 return backend._reduce_scatter_base(tensors[0], tensors[1], options);
               });
}

at::Tensor Group::all_to_all(const at::Tensor& rows, const std::vector<int64_t>& sent,
                             const std::vector<int64_t>& received) const {
  const auto ranks = static_cast<size_t>(size());
  TORCH_CHECK(sent.size() == ranks && received.size() == ranks, "[dist] expected ", ranks,
              " counts of rows for all_to_all, got ", sent.size(), " and ", received.size());
  TORCH_CHECK(rows.size(0) == std::accumulate(sent.begin(), sent.end(), int64_t{0}),
              "[dist] expected as many rows as are sent, got ", rows.size(0));
  if (alone()) return rows;
  auto sizes = rows.sizes().vec();
  sizes[0] = std::accumulate(received.begin(), received.end(), int64_t{0});
  const at::Tensor out = at::empty(sizes, rows.options());
  const double row_bytes = bytes_of(rows) / static_cast<double>(std::max<int64_t>(rows.size(0), 1));
  const auto others = static_cast<double>(rows.size(0) - sent[static_cast<size_t>(state_->rank)]);
  start("all_to_all", rows, row_bytes * others,
        [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
          tensors = {out, rows};
          std::vector<int64_t> out_rows = received, in_rows = sent;
          return backend.alltoall_base(tensors[0], tensors[1], out_rows, in_rows);
        })
      .wait();
  return out;
}

void Group::broadcast(const at::Tensor& values, int64_t root) const {
  if (alone() || values.numel() == 0) return;
  start("broadcast", values, state_->rank == root ? bytes_of(values) : 0.0,
        [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
          tensors = {values};
          c10d::BroadcastOptions options;
          options.rootRank = root;
          return backend.broadcast(tensors, options);
        })
      .wait();
}

Pending Group::start_send(const at::Tensor& values, int64_t peer, int64_t tag) const {
  TORCH_CHECK(peer >= 0 && peer < size() && peer != rank(), "[dist] expected another rank of ",
              size(), " to send to, got ", peer);
  return start("send", values, bytes_of(values),
               [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
                 tensors = {values};
                 return backend.send(tensors, static_cast<int>(peer), static_cast<int>(tag));
               });
}

Pending Group::start_receive(const at::Tensor& values, int64_t peer, int64_t tag) const {
  TORCH_CHECK(peer >= 0 && peer < size() && peer != rank(), "[dist] expected another rank of ",
              size(), " to receive from, got ", peer);
  return start("receive", values, 0.0,
               [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
                 tensors = {values};
                 return backend.recv(tensors, static_cast<int>(peer), static_cast<int>(tag));
               });
}

void Group::barrier() const {
  if (alone()) return;
  const at::Tensor token = at::empty({0});
  start("barrier", token, 0.0, [&](c10d::Backend& backend, std::vector<at::Tensor>&) {
    return backend.barrier();
  }).wait();
}

}  // namespace qianli::dist
