#include "qianli/nn/task_exchange.h"

#include <ATen/ops/empty.h>

namespace qianli::nn {
namespace {

constexpr int64_t kCargoTag = 0, kResultTag = 1;

class TaskExchange {
 public:
  TaskExchange(const std::vector<plan::PlaceRound>& rounds, const data::ContextDeal& deal,
               const dist::Group& ring, const TaskMessages& messages)
      : rounds_(rounds),
        deal_(deal),
        ring_(ring),
        messages_(messages),
        arrivals_(rounds.size()),
        results_(rounds.size()),
        sent_(rounds.size()) {}

  void run(const ComputeTask& compute, const TakeResult& take) {
    start(0);
    for (size_t round = 0; round < rounds_.size(); ++round) {
      arrivals_[round].pending.wait();
      start(round + 1);
      await_results(round);
      if (rounds_[round].task) return_result(round, compute(round, arrivals_[round].values));
      arrivals_[round].values = at::Tensor();
      if (round > 0) take_results(round - 1, take);
    }
    if (!rounds_.empty()) take_results(rounds_.size() - 1, take);
  }

 private:
  struct Arrival {
    at::Tensor values;
    dist::Pending pending;
  };
  struct Result {
    plan::PlaceRound::Cargo cargo;
    Arrival arrival;
  };

  // What the tasks of a round need.
  void start(size_t round) {
    if (round == rounds_.size()) return;
    for (const auto& message : rounds_[round].goes) {
      const at::Tensor& own = messages_.own(message.cargo);
      if (own.defined()) sent_[round].push_back(ring_.start_send(own, message.peer, kCargoTag));
    }
    const auto& message = rounds_[round].comes;
    if (!message || !messages_.own(message->cargo).defined()) return;
    const at::Tensor& own = messages_.own(message->cargo);
    auto& arrival = arrivals_[round];
    arrival.values = at::empty({deal_.rows(message->peer), own.size(1)}, own.options());
    arrival.pending = ring_.start_receive(arrival.values, message->peer, kCargoTag);
  }
  void await_results(size_t round) {
    for (const auto& message : rounds_[round].goes) {
      const int64_t columns = messages_.result_columns(message.cargo);
      if (columns == 0) continue;
      Arrival arrival{at::empty({deal_.rows(ring_.rank()), columns}, messages_.results), {}};
      arrival.pending = ring_.start_receive(arrival.values, message.peer, kResultTag);
      results_[round].push_back({message.cargo, std::move(arrival)});
    }
  }
  void return_result(size_t round, const at::Tensor& result) {
    const auto& message = rounds_[round].comes;
    if (message && messages_.result_columns(message->cargo) > 0)
      sent_[round].push_back(ring_.start_send(result, message->peer, kResultTag));
  }
  void take_results(size_t round, const TakeResult& take) {
    for (Result& result : results_[round]) {
      result.arrival.pending.wait();
      take(result.cargo, result.arrival.values);
    }
    results_[round].clear();
    for (auto& pending : sent_[round]) pending.wait();
    sent_[round].clear();
  }

  const std::vector<plan::PlaceRound>& rounds_;
  const data::ContextDeal& deal_;
  const dist::Group& ring_;
  const TaskMessages& messages_;
  // By round:
  std::vector<Arrival> arrivals_;
  std::vector<std::vector<Result>> results_;
  std::vector<std::vector<dist::Pending>> sent_;
};

}  // namespace

void run_tasks(const std::vector<plan::PlaceRound>& rounds, const data::ContextDeal& deal,
               const dist::Group& ring, const TaskMessages& messages, const ComputeTask& compute,
               const TakeResult& take) {
  TaskExchange(rounds, deal, ring, messages).run(compute, take);
}

}  // namespace qianli::nn
