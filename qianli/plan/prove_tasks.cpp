// The proof of a task schedule.
#include <fmt/format.h>

#include <map>
#include <tuple>

#include "qianli/plan/task_schedule.h"

namespace qianli::plan {
namespace {

using Cargo = PlaceRound::Cargo;
using Problems = std::vector<std::string>;

void check_cells(const TaskSchedule& schedule, const BitGrid& cells, Problems& problems) {
  std::vector<int64_t> times(static_cast<size_t>(cells.side() * cells.side()));
  for (const auto& tasks : schedule.rounds) {
    for (int64_t place = 0; place < schedule.places; ++place) {
      const auto& task = tasks[static_cast<size_t>(place)];
      if (!task) continue;
      if (task->query != place && task->key != place) {
        problems.push_back(fmt::format("place {} computes the task ({}, {}) of others", place,
                                       task->query, task->key));
      }
      ++times[static_cast<size_t>(task->query * cells.side() + task->key)];
    }
  }
  for (int64_t i = 0; i < cells.side(); ++i) {
    for (int64_t j = 0; j < cells.side(); ++j) {
      const int64_t found = times[static_cast<size_t>(i * cells.side() + j)];
      if (found != (cells.at(i, j) ? 1 : 0))
        problems.push_back(fmt::format("the cell ({}, {}) is computed {} times", i, j, found));
    }
  }
}

// One round of all places: each sent message is awaited by its receiver, and the other way round.
void check_messages(const std::vector<PlaceRound>& places, size_t round, Problems& problems) {
  std::map<std::tuple<Cargo, int64_t, int64_t>, int64_t> open;  // by the ends: sent - awaited
  for (size_t place = 0; place < places.size(); ++place) {
    const auto own = static_cast<int64_t>(place);
    int64_t lent = 0;
    for (const auto& message : places[place].goes) {
      ++open[{message.cargo, own, message.peer}];
      lent += message.cargo == Cargo::kQueries ? 1 : 0;
    }
    if (lent > 1) {
      problems.push_back(
          fmt::format("round {}: queries of place {} go to {} places", round, place, lent));
    }
    if (const auto& message = places[place].comes) --open[{message->cargo, message->peer, own}];
  }
  for (const auto& [ends, difference] : open) {
    if (difference != 0) {
      problems.push_back(fmt::format("round {}: what {} sends to {} is not what is awaited", round,
                                     std::get<1>(ends), std::get<2>(ends)));
    }
  }
}

// Units that a place sends and receives with others: for the tasks of a round, and by the results
// of these.
struct Units {
  int64_t needs = 0, results = 0;
};
Units units_of(const PlaceRound& round, const LinkCosts& costs) {
  Units units;
  const auto add = [&](const PlaceRound::Message& message) {
    units.needs += message.cargo == Cargo::kKeys ? costs.keys : costs.queries;
    units.results += message.cargo == Cargo::kQueries ? costs.result : 0;
  };
  if (round.comes) add(*round.comes);
  for (const auto& message : round.goes) add(message);
  return units;
}

}  // namespace

std::vector<std::string> schedule_problems(const TaskSchedule& schedule, const BitGrid& cells,
                                           const LinkCosts& costs) {
  Problems problems;
  check_cells(schedule, cells, problems);
  std::vector<std::vector<PlaceRound>> rounds(schedule.rounds.size());  // [round][place]
  for (int64_t place = 0; place < schedule.places; ++place) {
    const auto own = rounds_of(schedule, place);
    int64_t results = 0;
    for (size_t r = 0; r < own.size(); ++r) {
      const Units units = units_of(own[r], costs);
      if (units.needs + results > costs.limit()) {
        problems.push_back(fmt::format("round {}: {} units at place {}, at most {} fit", r,
                                       units.needs + results, place, costs.limit()));
      }
      results = units.results;
      rounds[r].push_back(own[r]);
    }
  }
  for (size_t r = 0; r < rounds.size(); ++r) check_messages(rounds[r], r, problems);
  return problems;
}

}  // namespace qianli::plan
