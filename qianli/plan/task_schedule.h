// Who computes attention of which queries to which keys, and when, where a mask leaves only some of
// the pairs of places open (adaptive context parallelism, MindSpeed
// core/context_parallel/adaptive_context_parallel).
//
// The task (i, j), the queries of place i to the keys of place j, runs on i, to which the keys come
// (with their values), or on j, to which the queries come and which returns the result. A place
// computes at most one task in a round; what a task needs arrives before its round, results return
// in the round after.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qianli/base/bit_grid.h"

namespace qianli::plan {

struct AttentionTask {
  int64_t query, key;  // places

  bool operator==(const AttentionTask&) const = default;
};

// What passes between two places, in any one unit. No place sends and receives more than `limit`
// together in a round, results of the round before included.
struct LinkCosts {
  int64_t keys = 2, queries = 1, result = 1;

  int64_t limit() const { return 3 * keys; }
};

struct TaskSchedule {
  int64_t places = 1;
  std::vector<std::vector<std::optional<AttentionTask>>> rounds;  // [round][place]
};

// In round t each place takes of its own row of cells the column place + t if it is open, else the
// nearest open one before its own that the links have room for; places that are left free compute
// for the owners of queries behind them, one for each owner. As many rounds as places at most.
TaskSchedule task_schedule(const BitGrid& cells, const LinkCosts& costs = {});

// What a place has to do in a round.
struct PlaceRound {
  enum class Cargo { kKeys, kQueries };
  struct Message {
    Cargo cargo;
    int64_t peer;

    bool operator==(const Message&) const = default;
  };
  std::optional<AttentionTask> task;
  std::optional<Message> comes;  // what the task needs of another place
  std::vector<Message> goes;     // what tasks of other places need of this one
};
// Of all rounds.
std::vector<PlaceRound> rounds_of(const TaskSchedule& schedule, int64_t place);

// Everything that is wrong: open cells that nobody computes or several do, closed ones that
// somebody does, places that compute others' tasks, messages without a receiver or a sender, and
// links that carry more than they may. Empty: the schedule is right.
std::vector<std::string> schedule_problems(const TaskSchedule& schedule, const BitGrid& cells,
                                           const LinkCosts& costs = {});

}  // namespace qianli::plan
