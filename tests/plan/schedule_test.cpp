#include "qianli/plan/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/plan/neighbours.h"
#include "tests/plan/schedule_cases.h"

namespace qianli::plan {
namespace {

using enum ScheduleKind;

double makespan(const ScheduleOptions& options, const Times& times) {
  return simulate(make_schedule(options), times).makespan;
}

std::vector<int64_t> peaks(const ScheduleOptions& options) {
  return prove(make_schedule(options)).peak_activations;
}

TEST(Schedules, interleaved_follows_megatrons_order) {
  const Schedule schedule =
      make_schedule({.kind = kInterleaved, .stages = 2, .microbatches = 4, .chunks = 2});
  EXPECT_EQ(computations(schedule, 0),
            "F0.0 F0.1 F1.0 F1.1 F0.2 B1.0 F0.3 B1.1 F1.2 B0.0 F1.3 B0.1 B1.2 B1.3 B0.2 B0.3");
  EXPECT_EQ(computations(schedule, 1),
            "F0.0 F0.1 F1.0 B1.0 F1.1 B1.1 F0.2 B0.0 F0.3 B0.1 F1.2 B1.2 F1.3 B1.3 B0.2 B0.3");
}

TEST(Schedules, microbatch_groups_pass_chunk_by_chunk) {
  const Schedule schedule = make_schedule(
      {.kind = kInterleaved, .stages = 2, .microbatches = 5, .chunks = 2, .group_size = 3});
  std::string forwards;
  for (const Instruction& instruction : schedule.programs[0]) {
    if (instruction.op == Op::kForward) forwards += name(instruction) + " ";
  }
  EXPECT_EQ(forwards, "F0.0 F0.1 F0.2 F1.0 F1.1 F1.2 F0.3 F0.4 F1.3 F1.4 ");
}

TEST(Schedules, dual_pipe_v_follows_mindspeeds_order) {
  const Schedule schedule = make_schedule({.kind = kDualPipeV, .stages = 2, .microbatches = 4});
  EXPECT_EQ(computations(schedule, 0),
            "F0.0 F0.1 F0.2 F1.0 b1.0 W1.0 F1.1 F0.3 B1.1 F1.2 B0.0 B1.2 F1.3 B0.1 B1.3 B0.2 B0.3");
  EXPECT_EQ(computations(schedule, 1),
            "F0.0 F1.0 F0.1 F1.1 F0.2 B1.0 F1.2 B0.0 F0.3 B1.1 F1.3 B0.1 B1.2 B0.2 B1.3 B0.3");
  EXPECT_EQ(schedule.flow, (Flow{{0, 0}, {1, 0}, {1, 1}, {0, 1}}));
}

TEST(Schedules, dual_pipe_v_detaches_the_last_weight_gradients) {
  const Schedule schedule = make_schedule({.kind = kDualPipeV,
                                           .stages = 2,
                                           .microbatches = 4,
                                           .chunks = 2,
                                           .detach_weight_grads = true});
  EXPECT_TRUE(computations(schedule, 0).ends_with("B1.3 b0.2 W0.2 b0.3 W0.3"));
  EXPECT_TRUE(computations(schedule, 1).ends_with("B1.2 B0.2 b1.3 b0.3 W1.3 W0.3"));
}

TEST(Schedules, dual_pipe_v_pairs_forwards_with_backwards_of_the_other_chunk) {
  const Schedule schedule = make_schedule(
      {.kind = kDualPipeV, .stages = 2, .microbatches = 4, .chunks = 2, .merge_pairs = true});
  const auto pairs = [&](size_t stage) {
    std::string text;
    const Program& program = schedule.programs[stage];
    for (size_t i = 0; i < program.size(); ++i) {
      if (program[i].paired) text += name(program[i]) + "|" + name(program[i + 1]) + " ";
    }
    return text;
  };
  EXPECT_EQ(pairs(0), "F0.3|B1.1 F1.2|B0.0 F1.3|B0.1 ");
  EXPECT_EQ(pairs(1), "F1.2|B0.0 F0.3|B1.1 F1.3|B0.1 ");  // the first pair stays apart
}

TEST(Schedules, slices_go_back_in_reverse) {
  const Schedule schedule =
      make_schedule({.kind = kSeq1F1B, .stages = 2, .microbatches = 2, .slices = 2});
  EXPECT_EQ(computations(schedule, 1), "F0.0 F0.0/1 B0.0/1 F0.1 B0.0 F0.1/1 B0.1/1 B0.1");
  EXPECT_EQ(computations(schedule, 0), "F0.0 F0.0/1 F0.1 B0.0/1 F0.1/1 B0.0 B0.1/1 B0.1");
}

TEST(Schedules, blocking_exchanges_have_megatrons_order) {
  const Schedule schedule = make_schedule({.kind = k1F1B, .stages = 4, .microbatches = 8});
  // Around the forward of microbatch 4 and its neighbours in the steady state.
  const auto around = [&](size_t stage, const std::string& begin, const std::string& end) {
    std::string text;
    bool within = false;
    for (const Instruction& instruction : schedule.programs[stage]) {
      const std::string word = name(instruction);
      if (word == end) break;
      if (within) text += word + ", ";
      within = within || word == begin;
    }
    return text;
  };
  EXPECT_EQ(around(2, "F0.4", "B0.3"), "send F0.4 to 3.0, receive B0.3 from 3.0, ");
  EXPECT_EQ(around(2, "B0.3", "F0.5"), "receive F0.5 from 1.0, send B0.3 to 1.0, ");
  EXPECT_EQ(around(1, "F0.5", "B0.3"), "send F0.5 to 2.0, receive B0.3 from 2.0, ");
  EXPECT_EQ(around(3, "B0.3", "F0.4"), "receive F0.4 from 2.0, send B0.3 to 2.0, ");
}

TEST(Schedules, simulated_times_are_the_published_ones) {
  // Chunk forward 1/v, backward 2/v.
  const ScheduleOptions one{.kind = k1F1B, .stages = 4, .microbatches = 8};
  EXPECT_DOUBLE_EQ(makespan(one, each(1, 1, 1)), 33.0);
  const ScheduleOptions two{.kind = kInterleaved, .stages = 4, .microbatches = 8, .chunks = 2};
  EXPECT_DOUBLE_EQ(makespan(two, each(0.5, 0.5, 0.5)), 28.5);
  EXPECT_EQ(peaks(two), (std::vector<int64_t>{11, 9, 7, 5}));
  for (const auto& [stages, microbatches, expected] :
       {std::tuple{2, 4, 27.0}, {4, 8, 57.0}, {8, 16, 117.0}}) {
    EXPECT_DOUBLE_EQ(makespan({.kind = kDualPipeV, .stages = stages, .microbatches = microbatches},
                              each(1, 1, 1)),
                     expected);
  }
}

TEST(Schedules, bubbles_are_the_published_formulas) {
  for (const double ratio : {1.0, 1.5, 2.0}) {  // backward over forward, halved by the gradients
    const Times times = each(1, ratio / 2, ratio / 2);
    for (const int64_t stages : {2, 3, 4, 8}) {
      const auto p = static_cast<double>(stages);
      for (const int64_t microbatches : {stages, 2 * stages, 3 * stages}) {
        const auto m = static_cast<double>(microbatches);
        ScheduleOptions options{.stages = stages, .microbatches = microbatches};
        const auto bubble = [&](ScheduleKind kind, double work) {
          options.kind = kind;
          return makespan(options, times) - work;
        };
        SCOPED_TRACE(describe(options));
        const double step = 1 + ratio, fill = (p - 1) * step;
        EXPECT_NEAR(bubble(kGPipe, m * step), fill, 1e-9);
        EXPECT_NEAR(bubble(k1F1B, m * step), fill, 1e-9);
        EXPECT_NEAR(bubble(kZeroBubble, m * step), (p - 1) * (1 + ratio / 2 - ratio / 2), 1e-9);
        for (const int64_t slices : {2, 4}) {
          options.slices = slices;
          const auto k = static_cast<double>(slices);
          EXPECT_NEAR(bubble(kSeq1F1B, m * k * step), fill, 1e-9);  // of a slice's step
          options.slices = 1;
        }
        for (const int64_t chunks : {2, 4}) {
          options.chunks = chunks;
          const auto v = static_cast<double>(chunks);
          EXPECT_NEAR(bubble(kInterleaved, m * v * step), fill, 1e-9);  // of a chunk's step
          options.chunks = 1;
        }
      }
    }
  }
}

TEST(Schedules, dual_pipe_v_bubble_is_six_units_a_microbatch_and_three_a_stage) {
  for (const int64_t stages : {2, 3, 4, 6}) {
    for (const int64_t microbatches : {2 * stages, 3 * stages, 5 * stages}) {
      EXPECT_DOUBLE_EQ(
          makespan({.kind = kDualPipeV, .stages = stages, .microbatches = microbatches},
                   each(1, 1, 1)),
          static_cast<double>(6 * microbatches + 3 * (stages - 1)));
    }
  }
}

TEST(Schedules, peaks_are_the_published_ones) {
  for (const int64_t stages : {2, 4, 8}) {
    for (const int64_t microbatches : {int64_t{1}, stages, 3 * stages}) {
      ScheduleOptions options{.stages = stages, .microbatches = microbatches};
      for (int64_t stage = 0; stage < stages; ++stage) {
        const auto peak = [&](ScheduleKind kind) {
          options.kind = kind;
          return peaks(options)[static_cast<size_t>(stage)];
        };
        EXPECT_EQ(peak(kGPipe), microbatches);
        EXPECT_EQ(peak(k1F1B), std::min(stages - stage, microbatches));
        EXPECT_EQ(peak(kZeroBubble), std::min(stages, microbatches));
        if (microbatches == 3 * stages) {  // of chunks
          options.chunks = 2;
          EXPECT_EQ(peak(kInterleaved), 2 * stages + stages - 1 - 2 * stage);
          EXPECT_EQ(peak(kDualPipeV), 2 * stages + 1);
          options.chunks = 1;
        }
        options.slices = 4;
        EXPECT_EQ(peak(kSeq1F1B), std::min(stages - stage + 3, 4 * microbatches));
        options.slices = 1;
      }
    }
  }
}

TEST(Schedules, nano_pipe_is_shorter_than_interleaved) {
  for (const int64_t stages : {3, 4, 8}) {
    ScheduleOptions options{
        .kind = kInterleaved, .stages = stages, .microbatches = 4 * stages, .chunks = 2};
    const double plain = makespan(options, each(1, 1, 1));
    options.kind = kNanoPipe;
    EXPECT_LT(makespan(options, each(1, 1, 1)), plain);
  }
  const Schedule schedule =
      make_schedule({.kind = kNanoPipe, .stages = 4, .microbatches = 8, .chunks = 2});
  for (size_t stage = 0; stage < 4; ++stage) {
    EXPECT_EQ(static_cast<size_t>(
                  std::ranges::count(schedule.programs[stage], Op::kInputGrad, &Instruction::op)),
              2 * stage);
  }
}

TEST(Schedules, blocking_messages_cost_one_f_one_b_nothing) {
  for (const int64_t stages : {2, 3, 4, 8}) {
    const Schedule schedule =
        make_schedule({.kind = k1F1B, .stages = stages, .microbatches = 3 * stages});
    for (const Times& times : {each(1, 1, 1), each(1, 0.5, 0.5)}) {
      const double overlapped = simulate(schedule, times).makespan;
      EXPECT_DOUBLE_EQ(simulate(schedule, times, Transfer::kBlocking).makespan, overlapped);
      EXPECT_DOUBLE_EQ(simulate(schedule, times, Transfer::kBatched).makespan, overlapped);
    }
  }
}

TEST(Schedules, every_one_of_the_grid_is_proven) {
  const auto grid = schedule_grid();
  EXPECT_GT(grid.size(), 1000u);
  for (const ScheduleOptions& options : grid) {
    const Proof proof = prove(make_schedule(options));
    ASSERT_TRUE(proof.problems.empty()) << describe(options) << "\n" << all_problems(proof);
  }
}

TEST(Schedules, evaluation_goes_forward_only) {
  int checked = 0;
  for (ScheduleOptions options : schedule_grid()) {
    options.forward_only = true;
    if (!schedule_problems(options).empty()) continue;
    const Schedule schedule = make_schedule(options);
    const Proof proof = prove(schedule);
    ASSERT_TRUE(proof.problems.empty()) << describe(options) << "\n" << all_problems(proof);
    EXPECT_EQ(std::ranges::max(proof.peak_activations), 0);
    for (const Program& program : schedule.programs) {
      for (const Instruction& instruction : program) {
        EXPECT_NE(instruction.op, Op::kBackward);
        EXPECT_NE(instruction.op, Op::kSendGradient);
        EXPECT_NE(instruction.op, Op::kReduceGradients);
      }
    }
    ++checked;
  }
  EXPECT_GT(checked, 500);
  Schedule schedule = make_schedule({.stages = 2, .microbatches = 2});
  schedule.forward_only = true;  // but its programs go back
  EXPECT_FALSE(prove(schedule).problems.empty());
}

TEST(Schedules, gradients_are_reduced_at_the_same_step_on_all_stages) {
  ScheduleOptions options{.kind = kInterleaved, .stages = 4, .microbatches = 8, .chunks = 2};
  const auto begins = [&](int32_t chunk, Op op) {
    const Schedule schedule = make_schedule(options);
    const Timeline line = simulate(schedule, each(1, 1, 1));
    std::vector<double> times;
    for (size_t stage = 0; stage < 4; ++stage) {
      for (size_t i = 0; i < schedule.programs[stage].size(); ++i) {
        const Instruction& instruction = schedule.programs[stage][i];
        if (instruction.op == op && instruction.chunk == chunk)
          times.push_back(line.spans[stage][i].begin);
      }
    }
    return times;
  };
  const auto spread = [](const std::vector<double>& times) {
    const auto [low, high] = std::ranges::minmax(times);
    return high - low;
  };
  const double aligned = spread(begins(1, Op::kReduceGradients));
  options.align_collectives = false;
  EXPECT_LT(aligned, spread(begins(1, Op::kReduceGradients)));
  EXPECT_LE(aligned, 3.0);  // less than one step, a forward and a backward
}

TEST(Schedules, recompute_in_the_bubble_saves_memory_and_no_time_goes_to_waste) {
  for (const int64_t stages : {4, 8}) {
    for (const int64_t groups : {2, 3, 4, 6}) {
      ScheduleOptions options{
          .kind = kInterleaved, .stages = stages, .microbatches = groups * stages, .chunks = 2};
      SCOPED_TRACE(describe(options));
      const Times times = each(1, 1, 1);
      const double plain = makespan(options, times);
      const int64_t plain_peak = peaks(options)[0];
      options.recompute = Recompute::kFull;
      const double full = makespan(options, times);
      options.recompute = Recompute::kInAdvance;
      EXPECT_LT(makespan(options, times), full);
      options.recompute = Recompute::kInBubble;
      EXPECT_LT(peaks(options)[0], plain_peak);
      EXPECT_EQ(peaks(options)[0], stages * 2);  // stages x chunks
      EXPECT_LT(makespan(options, times) - plain, (full - plain) / 2);
    }
  }
}

TEST(Schedules, refusals_name_everything_at_once) {
  const auto message = [](const ScheduleOptions& options) -> std::string {
    try {
      make_schedule(options);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  };
  const std::string several =
      message({.kind = kInterleaved, .stages = 1, .microbatches = 4, .slices = 2});
  EXPECT_NE(several.find("at least 2 chunks"), std::string::npos) << several;
  EXPECT_NE(several.find("at least 2 stages"), std::string::npos) << several;
  EXPECT_NE(several.find("slices"), std::string::npos) << several;
  EXPECT_NE(message({.kind = kInterleaved, .stages = 4, .microbatches = 9, .chunks = 2})
                .find("a last group of at least 4 microbatches"),
            std::string::npos);
  EXPECT_NE(message({.kind = kInterleaved, .stages = 4, .microbatches = 3, .chunks = 2})
                .find("groups of 4 (stages) to 3"),
            std::string::npos);
  EXPECT_NE(message({.kind = kDualPipeV, .stages = 4, .microbatches = 6}).find("at least 7"),
            std::string::npos);
  EXPECT_EQ(message({.kind = kDualPipeV, .stages = 4, .microbatches = 7}), "accepted");
  EXPECT_NE(message({.stages = 1 << 20, .microbatches = 1 << 20}).find("of at most"),
            std::string::npos);
  EXPECT_NE(message({.kind = k1F1B, .stages = 2, .microbatches = 2, .chunks = 2}).find("1 chunk"),
            std::string::npos);
  EXPECT_THROW(schedule_kind("1f1bb"), ConfigError);
}

TEST(Schedule, names_the_stages_that_activations_go_between) {
  using Pairs = std::set<std::pair<int32_t, int32_t>>;
  EXPECT_EQ(neighbours(ring_flow(3, 1)), (Pairs{{0, 1}, {1, 2}}));
  EXPECT_EQ(neighbours(ring_flow(3, 2)), (Pairs{{0, 1}, {1, 2}, {2, 0}}));
  EXPECT_EQ(neighbours(v_flow(3)), (Pairs{{0, 1}, {1, 2}, {2, 1}, {1, 0}}));
  EXPECT_TRUE(neighbours(ring_flow(1, 2)).empty());
}

}  // namespace
}  // namespace qianli::plan
