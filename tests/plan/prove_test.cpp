// The prover finds what is wrong with a schedule: faults are planted one at a time.
#include "qianli/plan/prove.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/plan/schedule_cases.h"

namespace qianli::plan {
namespace {

using enum ScheduleKind;

std::vector<Schedule> sound() {
  return {
      make_schedule({.kind = k1F1B, .stages = 3, .microbatches = 4}),
      make_schedule({.kind = kInterleaved,
                     .stages = 2,
                     .microbatches = 4,
                     .chunks = 2,
                     .recompute = Recompute::kFull}),
      make_schedule({.kind = kDualPipeV, .stages = 2, .microbatches = 4}),
      make_schedule({.kind = kSeq1F1B, .stages = 2, .microbatches = 2, .slices = 3}),
  };
}

TEST(Prove, finds_every_missing_and_every_doubled_instruction) {
  for (const Schedule& schedule : sound()) {
    ASSERT_TRUE(prove(schedule).problems.empty());
    for (size_t stage = 0; stage < schedule.programs.size(); ++stage) {
      for (size_t i = 0; i < schedule.programs[stage].size(); ++i) {
        const std::string what = name(schedule.programs[stage][i]);
        Schedule faulty = schedule;
        Program& program = faulty.programs[stage];
        const Instruction instruction = program[i];
        program.erase(program.begin() + static_cast<ptrdiff_t>(i));
        EXPECT_FALSE(prove(faulty).problems.empty()) << "without " << what;
        program.insert(program.begin() + static_cast<ptrdiff_t>(i), 2, instruction);
        EXPECT_FALSE(prove(faulty).problems.empty()) << "twice " << what;
      }
    }
  }
}

TEST(Prove, finds_units_in_a_wrong_order) {
  // An instruction and a later one of the same unit change places: never sound but where both only
  // send.
  for (const Schedule& schedule : sound()) {
    for (size_t stage = 0; stage < schedule.programs.size(); ++stage) {
      const Program& program = schedule.programs[stage];
      for (size_t i = 0; i < program.size(); ++i) {
        for (size_t j = i + 1; j < program.size(); ++j) {
          const Instruction &a = program[i], &b = program[j];
          if (!is_compute(a.op) || !is_compute(b.op) || a.chunk != b.chunk ||
              a.microbatch != b.microbatch) {
            continue;
          }
          Schedule faulty = schedule;
          std::swap(faulty.programs[stage][i], faulty.programs[stage][j]);
          EXPECT_FALSE(prove(faulty).problems.empty()) << name(a) << " and " << name(b);
        }
      }
    }
  }
}

TEST(Prove, finds_messages_in_another_order_than_they_are_sent) {
  for (const Schedule& schedule : sound()) {
    for (size_t stage = 0; stage < schedule.programs.size(); ++stage) {
      const Program& program = schedule.programs[stage];
      for (size_t i = 0; i + 1 < program.size(); ++i) {
        for (size_t j = i + 1; j < program.size(); ++j) {
          if (!is_message(program[i].op) || is_send(program[i].op) != is_send(program[j].op) ||
              !is_message(program[j].op) || program[i].peer != program[j].peer) {
            continue;
          }
          Schedule faulty = schedule;
          std::swap(faulty.programs[stage][i], faulty.programs[stage][j]);
          EXPECT_FALSE(prove(faulty).problems.empty())
              << name(program[i]) << " and " << name(program[j]);
          break;
        }
      }
    }
  }
}

TEST(Prove, finds_stages_that_wait_for_each_other) {
  // Both stages send before they receive: with blocking messages nobody comes on.
  Schedule schedule = make_schedule({.kind = k1F1B, .stages = 2, .microbatches = 4});
  Program& last = schedule.programs[1];
  const auto receive = std::ranges::find_if(last, [](const Instruction& i) {
    return i.op == Op::kReceiveActivation && i.microbatch == 2;
  });
  ASSERT_EQ((receive + 1)->op, Op::kSendGradient);
  std::swap(*receive, *(receive + 1));
  const Proof proof = prove(schedule);
  ASSERT_EQ(proof.problems.size(), 1u) << all_problems(proof);
  EXPECT_NE(proof.problems[0].find("blocking"), std::string::npos) << proof.problems[0];
  EXPECT_NE(proof.problems[0].find("stage 0 waits at send F0"), std::string::npos);
  EXPECT_TRUE(simulate(schedule, Times{}, Transfer::kBatched).stuck.empty());
}

TEST(Prove, finds_wrong_addresses_and_collectives_that_come_too_early) {
  const Schedule schedule =
      make_schedule({.kind = kInterleaved, .stages = 2, .microbatches = 4, .chunks = 2});
  for (size_t i = 0; i < schedule.programs[0].size(); ++i) {
    Schedule faulty = schedule;
    Instruction& instruction = faulty.programs[0][i];
    if (is_message(instruction.op)) {
      instruction.peer_chunk = 1 - instruction.peer_chunk;
      EXPECT_FALSE(prove(faulty).problems.empty()) << name(instruction);
      instruction.peer = 7;
      EXPECT_FALSE(prove(faulty).problems.empty()) << name(instruction);
    }
    if (instruction.op == Op::kReduceGradients) {
      const Instruction early = instruction;
      Program& program = faulty.programs[0];
      program.erase(program.begin() + static_cast<ptrdiff_t>(i));
      program.insert(program.begin() + 8, early);
      EXPECT_FALSE(prove(faulty).problems.empty()) << name(early);
    }
  }
}

TEST(Prove, refuses_what_is_no_schedule) {
  Schedule schedule = make_schedule({.stages = 2, .microbatches = 2});
  schedule.flow[1] = schedule.flow[0];
  EXPECT_EQ(prove(schedule).problems.size(), 1u);
  schedule.flow[1] = {5, 0};
  EXPECT_EQ(prove(schedule).problems.size(), 1u);
  schedule.programs.clear();
  EXPECT_EQ(prove(schedule).problems.size(), 1u);
}

TEST(Prove, counts_what_lies_in_memory) {
  const Schedule schedule =
      make_schedule({.kind = k1F1B, .stages = 4, .microbatches = 8, .recompute = Recompute::kFull});
  const Proof proof = prove(schedule);
  EXPECT_EQ(proof.peak_activations, (std::vector<int64_t>{1, 1, 1, 1}));
  EXPECT_EQ(proof.peak_inputs, (std::vector<int64_t>{4, 3, 2, 1}));
}

}  // namespace
}  // namespace qianli::plan
