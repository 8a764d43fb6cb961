#include "qianli/plan/task_schedule.h"

#include <algorithm>

namespace qianli::plan {
namespace {

// The rounds, one after the other. Of a round's limit two messages of keys are left for each place
// by the results that return in it: the first choice of every place sends one and receives one.
class Scheduler {
 public:
  Scheduler(const BitGrid& cells, const LinkCosts& costs)
      : cells_(cells),
        costs_(costs),
        places_(cells.side()),
        left_(cells.count()),
        done_(cells.side()),
        returning_(static_cast<size_t>(places_)) {}

  TaskSchedule run() {
    TaskSchedule schedule{places_, {}};
    for (int64_t round = 0; left_ > 0; ++round) {
      begin_round();
      for (int64_t place = 0; place < places_; ++place) take_first(place, round);
      for (int64_t place = 0; place < places_; ++place) take_before(place);
      for (int64_t place = 0; place < places_; ++place) take_other(place);
      schedule.rounds.push_back(std::move(tasks_));
    }
    return schedule;
  }

 private:
  static size_t at(int64_t place) { return static_cast<size_t>(place); }
  bool open(int64_t query, int64_t key) const {
    return cells_.at(query, key) && !done_.at(query, key);
  }
  int64_t wrapped(int64_t place) const { return (place % places_ + places_) % places_; }

  void begin_round() {
    tasks_.assign(at(places_), std::nullopt);
    used_ = returning_;
    returning_.assign(at(places_), 0);
    lends_.assign(at(places_), false);
  }
  void take(int64_t place, AttentionTask task) {
    tasks_[at(place)] = task;
    done_.set(task.query, task.key);
    --left_;
  }
  bool fits(int64_t place, int64_t peer, int64_t cost) const {
    return used_[at(place)] + cost <= costs_.limit() && used_[at(peer)] + cost <= costs_.limit();
  }
  void bring_keys(int64_t place, int64_t owner) {
    if (place != owner) {
      used_[at(place)] += costs_.keys;
      used_[at(owner)] += costs_.keys;
    }
    take(place, {place, owner});
  }

  void take_first(int64_t place, int64_t round) {
    const int64_t owner = wrapped(place + round);
    if (open(place, owner)) bring_keys(place, owner);
  }
  void take_before(int64_t place) {
    for (int64_t back = 1; back < places_ && !tasks_[at(place)]; ++back) {
      const int64_t owner = wrapped(place - back);
      if (open(place, owner) && fits(place, owner, costs_.keys)) bring_keys(place, owner);
    }
  }
  void take_other(int64_t place) {
    if (tasks_[at(place)]) return;
    const int64_t room = costs_.limit() - 2 * costs_.keys;
    for (int64_t ahead = 1; ahead < places_; ++ahead) {
      const int64_t owner = wrapped(place + ahead);
      if (!open(owner, place) || lends_[at(owner)] || !fits(place, owner, costs_.queries)) continue;
      if (returning_[at(place)] + costs_.result > room ||
          returning_[at(owner)] + costs_.result > room)
        continue;
      lends_[at(owner)] = true;
      for (const int64_t end : {place, owner}) {
        used_[at(end)] += costs_.queries;
        returning_[at(end)] += costs_.result;
      }
      return take(place, {owner, place});
    }
  }

  const BitGrid& cells_;
  LinkCosts costs_;
  int64_t places_, left_;
  BitGrid done_;
  std::vector<int64_t> used_, returning_;  // by this round, and by results in the next one
  std::vector<bool> lends_;                // whose queries have gone to another place in this round
  std::vector<std::optional<AttentionTask>> tasks_;
};

}  // namespace

TaskSchedule task_schedule(const BitGrid& cells, const LinkCosts& costs) {
  return Scheduler(cells, costs).run();
}

std::vector<PlaceRound> rounds_of(const TaskSchedule& schedule, int64_t place) {
  using Cargo = PlaceRound::Cargo;
  std::vector<PlaceRound> rounds;
  for (const auto& tasks : schedule.rounds) {
    PlaceRound round{.task = tasks[static_cast<size_t>(place)]};
    for (int64_t other = 0; other < schedule.places; ++other) {
      const auto& task = tasks[static_cast<size_t>(other)];
      if (!task || task->query == task->key) continue;
      const bool keys_travel = task->query == other;
      const Cargo cargo = keys_travel ? Cargo::kKeys : Cargo::kQueries;
      const int64_t owner = keys_travel ? task->key : task->query;
      if (other == place) round.comes = {cargo, owner};
      if (owner == place) round.goes.push_back({cargo, other});
    }
    rounds.push_back(std::move(round));
  }
  return rounds;
}

}  // namespace qianli::plan
