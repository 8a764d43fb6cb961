// What the tests of schedules share.
#pragma once

#include <string>
#include <vector>

#include "qianli/plan/prove.h"
#include "qianli/plan/schedule.h"
#include "qianli/plan/simulate.h"

namespace qianli::plan {

// A stage's computations in order: "F0.0 F0.1 B0.0".
inline std::string computations(const Schedule& schedule, int stage) {
  std::string text;
  for (const Instruction& instruction : schedule.programs[static_cast<size_t>(stage)]) {
    if (is_compute(instruction.op)) text += (text.empty() ? "" : " ") + name(instruction);
  }
  return text;
}

inline std::string all_problems(const Proof& proof) {
  std::string text;
  for (const std::string& problem : proof.problems) text += problem + "\n";
  return text;
}

inline Times each(double forward, double input_grad, double weight_grad) {
  return {.chunks = {{forward, input_grad, weight_grad}}};
}

// Every valid combination of small sizes, of all families.
std::vector<ScheduleOptions> schedule_grid();
std::string describe(const ScheduleOptions& options);

}  // namespace qianli::plan
