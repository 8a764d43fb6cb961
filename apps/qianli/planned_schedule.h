// A pipeline schedule with all that is known about it, as picture, numbers and JSON.
#pragma once

#include <string>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/plan/prove.h"
#include "qianli/plan/schedule.h"
#include "qianli/plan/simulate.h"

namespace qianli::app {

// Of one microbatch on one stage, all its chunks together.
struct StageTimes {
  double forward = 1, input_grad = 1, weight_grad = 1, message = 0, pair = 1;
};

// Proven and simulated.
struct PlannedSchedule {
  const plan::NamedSchedule* name;
  plan::Schedule schedule;
  plan::Proof proof;
  plan::Timeline line;
  double ideal = 0;  // makespan without any bubble

  // Units of the schedule in a microbatch of a whole stage.
  double units() const { return static_cast<double>(schedule.chunks) * schedule.slices; }
  // Microbatches whose activations each stage holds at most, and the fullest stage.
  std::vector<double> peaks() const;
  double peak() const;
};

// Throws ConfigError for options that do not fit together.
PlannedSchedule plan_schedule(const plan::ScheduleOptions& options, const StageTimes& stage = {},
                              plan::Transfer transfer = plan::Transfer::kOverlapped);

// Kind, shape, makespan, bubble and peaks; with the flow and all instructions.
OrderedJson summary_json(const PlannedSchedule& made);
OrderedJson schedule_json(const PlannedSchedule& made);
// For the terminal, to standard output.
void print_picture(const PlannedSchedule& made);
void write_svg(const PlannedSchedule& made, const std::string& file);

}  // namespace qianli::app
