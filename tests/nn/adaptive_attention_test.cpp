// Adaptive attention, against whole sequences and what its schedule says it sends.
#include <gtest/gtest.h>

#include <array>

#include "qianli/base/random.h"
#include "qianli/plan/task_schedule.h"
#include "tests/nn/context_case.h"

namespace qianli::testing {
namespace {

using data::ContextAlgorithm;

// Documents of drawn lengths, with and without a mask, windows and everything beside.
TEST(AdaptiveAttention, equals_attention_over_any_documents) {
  for (uint64_t number = 0; number < 24; ++number) {
    const uint64_t key = random_key(number, "documents");
    const auto draw = [&](uint64_t i, int64_t below) {
      return static_cast<int64_t>(uniform_at(key, i) * static_cast<double>(below));
    };
    ContextCase c{.name = "drawn " + std::to_string(number),
                  .algorithm = ContextAlgorithm::kAdaptive,
                  .size = std::array{2, 3, 4, 8}[number % 4],
                  .starts = {0}};
    c.inner = c.size > 3 && draw(0, 3) == 0 ? 2 : 1;
    c.heads = 4;
    c.key_heads = std::array{4, 2, 1}[static_cast<size_t>(draw(1, 3))];
    if (c.key_heads == 4) c.value_dim = 4 + draw(2, 8);
    c.causal = draw(3, 3) > 0;
    c.sliding = draw(4, 3) == 0 ? 2 + draw(5, 20) : 0;
    c.softcap = draw(6, 4) == 0 ? 2.0 : 0.0;
    c.slopes = draw(7, 4) == 0;
    c.sinks = draw(8, 3) == 0;
    c.kept = std::array{data::KeptKeys::kNone, data::KeptKeys::kKeys,
                        data::KeptKeys::kAll}[static_cast<size_t>(draw(9, 3))];
    const int64_t tokens = c.size + draw(10, 100), longest = 6 + draw(11, 60);
    for (uint64_t i = 12; c.starts.back() < tokens; ++i)
      c.starts.push_back(std::min(tokens, c.starts.back() + draw(i, longest)));
    check_all(c);
  }
}

// The tokens of places are several parts each.
TEST(AdaptiveAttention, in_an_order_of_clusters) {
  for (const auto& starts :
       {std::vector<int64_t>{0, 64, 192, 320, 384}, {0, 47, 62, 107, 120}, {0, 6, 17, 30, 41, 60}})
    check_all({.name = "clusters",
               .algorithm = ContextAlgorithm::kAdaptive,
               .size = 3,
               .starts = starts,
               .heads = 2,
               .sinks = true});
}

// Queries travel, and outputs return with statistics of twice their width.
TEST(AdaptiveAttention, in_bfloat16) {
  for (const auto kept : {data::KeptKeys::kNone, data::KeptKeys::kAll}) {
    check({.name = "bfloat16",
           .algorithm = ContextAlgorithm::kAdaptive,
           .size = 4,
           .starts = {0, 150, 200},
           .heads = 2,
           .sinks = true,
           .kept = kept},
          at::kBFloat16, 0.02);
  }
}

// What the schedule's messages of a rank carry, float64: keys with values, queries, and outputs
// with one statistic; backward what comes back as well.
Volumes scheduled(const ContextCase& c, int64_t rank) {
  const data::ContextDeal deal(c.starts, c.options());
  const auto rows = static_cast<double>(deal.rows(rank)), n = static_cast<double>(c.heads),
             g = static_cast<double>(c.key_heads), d = static_cast<double>(c.dim),
             e = static_cast<double>(c.value_dim);
  const plan::LinkCosts costs{c.key_heads * (c.dim + c.value_dim), c.heads * c.dim,
                              c.heads * c.value_dim};
  const auto schedule =
      plan::task_schedule(data::open_cells(deal.places(), c.causal, c.sliding), costs);
  double forward = 0, backward = 0;
  for (const auto& round : plan::rounds_of(schedule, rank)) {
    for (const auto& message : round.goes) {
      const bool keys = message.cargo == plan::PlaceRound::Cargo::kKeys;
      forward += rows * (keys ? g * (d + e) : n * d);
      backward += rows * (keys ? g * (d + e) : n * (d + 2 * e + 1));
    }
    if (!round.comes) continue;
    const auto others = static_cast<double>(deal.rows(round.comes->peer));
    const bool keys = round.comes->cargo == plan::PlaceRound::Cargo::kKeys;
    forward += keys ? 0 : others * n * (e + 1);
    backward += others * (keys ? g * (d + e) : n * d);
  }
  return {8 * forward, 8 * (forward + backward)};
}

TEST(AdaptiveAttention, sends_what_its_schedule_says_and_less_than_a_ring) {
  const auto bytes = [](ContextCase c) {
    double ring = 0, adaptive = 0;
    for (const auto& own : check(c, at::kDouble, 1e-10)) ring += own.total;
    c.algorithm = ContextAlgorithm::kAdaptive;
    const auto volumes = check(c, at::kDouble, 1e-10);
    for (size_t rank = 0; rank < volumes.size(); ++rank) {
      const Volumes expected = scheduled(c, static_cast<int64_t>(rank));
      EXPECT_DOUBLE_EQ(volumes[rank].forward, expected.forward) << c.name << rank;
      EXPECT_DOUBLE_EQ(volumes[rank].total, expected.total) << c.name << rank;
      adaptive += volumes[rank].total;
    }
    return adaptive / ring;
  };
  const ContextCase base{.name = "bytes", .size = 8, .starts = {0, 160}, .heads = 2};
  EXPECT_GT(bytes(base), 0);
  ContextCase sliding = base;
  sliding.sliding = 21;  // as far back as the place before
  EXPECT_LT(bytes(sliding), 0.25);
  ContextCase packed = base;
  for (int64_t end = 15; end < 160; end += 15) packed.starts.insert(packed.starts.end() - 1, end);
  EXPECT_LT(bytes(packed), 0.25);
  ContextCase apart = base;
  apart.starts = {0, 20, 40, 60, 80, 100, 120, 140, 160};
  EXPECT_EQ(bytes(apart), 0);
  ContextCase grouped = packed;
  grouped.heads = 8;
  EXPECT_LT(bytes(grouped), 0.25);
}

}  // namespace
}  // namespace qianli::testing
