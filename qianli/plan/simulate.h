// How long a schedule takes: every instruction's beginning and end.
#pragma once

#include <string>
#include <vector>

#include "qianli/plan/schedule.h"

namespace qianli::plan {

// How messages and computation share time.
enum class Transfer {
  kOverlapped,  // messages travel beside computation; a unit starts when its input is there.
                // Needs no messages in the programs.
  kBatched,     // an exchange (neighbouring messages) begins together and ends with its last
  kBlocking,    // one message after the other, sender and receiver meeting in each
};

// In any unit of time.
struct ChunkTimes {
  double forward = 1, input_grad = 1, weight_grad = 1;  // of one microbatch, or one slice of it
};
struct Times {
  std::vector<ChunkTimes> chunks = {{}};  // by place in the schedule's flow; one: for all
  std::vector<double> slices;             // factors for each slice; empty: 1
  double message = 0;                     // from stage to stage
  double pair = 1;  // of the sum of both that a merged forward and backward take

  const ChunkTimes& at(size_t place) const {
    return chunks.size() == 1 ? chunks[0] : chunks[place];
  }
};

struct Span {
  double begin = 0, end = 0;
};

struct Timeline {
  std::vector<std::vector<Span>> spans;  // as the schedule's programs
  std::vector<double> busy;              // time that each stage computes
  double makespan = 0;
  std::string stuck;  // who waits for what, where the programs wait for each other; else empty

  // Share of all stages' time in which they do not compute, 0 to 1.
  double bubble() const;
};

// `times.chunks` has one entry or one for each place of the flow.
Timeline simulate(const Schedule& schedule, const Times& times,
                  Transfer transfer = Transfer::kOverlapped);

}  // namespace qianli::plan
