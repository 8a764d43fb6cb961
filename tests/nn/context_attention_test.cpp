// Attention over ranks that share the sequences, against ops::attention over whole ones, in float64
// and with the kernels in float32.
#include "qianli/nn/context_attention.h"

#include <gtest/gtest.h>

#include "tests/nn/context_case.h"

namespace qianli::testing {
namespace {

using data::ContextAlgorithm;

// Every algorithm on 2 and 4 ranks.
void check_algorithms(ContextCase c) {
  const std::string name = c.name;
  for (const int64_t size : {2, 4}) {
    for (const auto& [algorithm, word] : {std::pair{ContextAlgorithm::kRing, "ring"},
                                          {ContextAlgorithm::kUlysses, "ulysses"},
                                          {ContextAlgorithm::kHybrid, "hybrid"},
                                          {ContextAlgorithm::kKvAllGather, "all-gather"},
                                          {ContextAlgorithm::kAdaptive, "adaptive"}}) {
      if (algorithm == ContextAlgorithm::kHybrid && size == 2) continue;
      c.name = name + ", " + word + " of " + std::to_string(size);
      c.algorithm = algorithm;
      c.size = size;
      c.inner = algorithm == ContextAlgorithm::kHybrid ? 2 : 1;
      check_all(c);
    }
  }
}

TEST(ContextAttention, equals_attention_over_whole_sequences) {
  check_algorithms({.name = "causal"});
  check_algorithms({.name = "general", .causal = false});
  check_algorithms({.name = "long", .starts = {0, 300}, .heads = 4, .key_heads = 4});
}

TEST(ContextAttention, with_values_of_another_size) {
  check_algorithms({.name = "MLA", .heads = 4, .key_heads = 4, .dim = 12, .value_dim = 6});
}

TEST(ContextAttention, with_packed_documents_of_any_length) {
  check_algorithms({.name = "multiples", .starts = {0, 8, 32, 48}});
  check_algorithms({.name = "any lengths", .starts = {0, 1, 4, 21, 21, 47}});
  check_algorithms({.name = "packed, general", .starts = {0, 13, 30}, .causal = false});
}

TEST(ContextAttention, with_windows_caps_slopes_and_sinks) {
  check_algorithms({.name = "window", .starts = {0, 40}, .sliding = 7});
  check_algorithms({.name = "softcap", .softcap = 2.0});
  check_algorithms({.name = "slopes", .slopes = true});
  check_algorithms({.name = "sinks", .starts = {0, 9, 32}, .sinks = true});
  check_algorithms({.name = "everything",
                    .starts = {0, 50, 70},
                    .sliding = 11,
                    .softcap = 3.0,
                    .slopes = true,
                    .sinks = true});
}

TEST(ContextAttention, with_heads_and_lengths_that_do_not_divide) {
  check_all({.name = "uneven Ulysses",
             .algorithm = ContextAlgorithm::kUlysses,
             .size = 4,
             .starts = {0, 37},
             .heads = 6,
             .key_heads = 6});
  check_all({.name = "uneven Ulysses, grouped",
             .algorithm = ContextAlgorithm::kUlysses,
             .size = 4,
             .starts = {0, 37},
             .heads = 6,
             .key_heads = 3});
  check_all({.name = "one key head",
             .algorithm = ContextAlgorithm::kUlysses,
             .size = 3,
             .starts = {0, 10},
             .heads = 8,
             .key_heads = 1,
             .slopes = true});
  check_all({.name = "unaligned ring", .size = 3, .starts = {0, 220}, .causal = false});
}

TEST(ContextAttention, over_a_double_ring) {
  for (const int64_t window : {2, 4}) {
    for (const bool causal : {true, false}) {
      check_all({.name = "double ring of 8 in windows of " + std::to_string(window),
                 .size = 8,
                 .window = window,
                 .starts = {0, 32, 50},
                 .causal = causal});
    }
  }
  for (const int64_t inner : {2, 4}) {
    check_all({.name = "hybrid of 8, " + std::to_string(inner) + " exchange heads",
               .algorithm = ContextAlgorithm::kHybrid,
               .size = 8,
               .inner = inner,
               .window = inner == 2 ? 2 : 1,
               .starts = {0, 64}});
  }
}

TEST(ContextAttention, keys_that_stay_do_not_travel_again) {
  for (const auto algorithm :
       {ContextAlgorithm::kRing, ContextAlgorithm::kKvAllGather, ContextAlgorithm::kAdaptive}) {
    // Key heads too few for adaptive places to send queries.
    ContextCase c{.name = "kept",
                  .algorithm = algorithm,
                  .size = 4,
                  .starts = {0, 32},
                  .heads = 4,
                  .key_heads = 1};
    const double none = check(c, at::kDouble, 1e-10)[1].total;
    c.kept = data::KeptKeys::kKeys;
    const auto half = check(c, at::kDouble, 1e-10)[1];
    c.kept = data::KeptKeys::kAll;
    const auto full = check(c, at::kDouble, 1e-10)[1];
    EXPECT_DOUBLE_EQ(none - half.total, half.forward / 2);
    EXPECT_DOUBLE_EQ(none - full.total, full.forward);
    c.window = algorithm == ContextAlgorithm::kRing ? 2 : 1;
    check_all(c);
  }
}

// Bytes per rank against the closed formulas, T tokens in all.
TEST(ContextAttention, sends_as_much_as_the_formulas_say) {
  constexpr double kBytes = 8, kTokens = 64, kHeads = 8, kKeyHeads = 2, kDim = 8;
  const auto volumes = [](ContextAlgorithm algorithm, int64_t size, int64_t inner, int64_t window) {
    return check({.name = "volume",
                  .algorithm = algorithm,
                  .size = size,
                  .inner = inner,
                  .window = window,
                  .starts = {0, 64},
                  .heads = 8,
                  .key_heads = 2},
                 at::kDouble, 1e-10);
  };
  for (const double c : {2.0, 4.0}) {
    const auto size = static_cast<int64_t>(c);
    const double keys = 2 * kTokens * kKeyHeads * kDim * kBytes;  // of all ranks
    for (const auto& own : volumes(ContextAlgorithm::kRing, size, 1, 1)) {
      EXPECT_DOUBLE_EQ(own.forward, (c - 1) * keys / c);
      EXPECT_DOUBLE_EQ(own.total, own.forward * 2 + c * keys / c);
    }
    for (const auto& own : volumes(ContextAlgorithm::kKvAllGather, size, 1, 1)) {
      EXPECT_DOUBLE_EQ(own.forward, keys * (c - 1) / c);
      EXPECT_DOUBLE_EQ(own.total, 3 * own.forward);
    }
    for (const auto& own : volumes(ContextAlgorithm::kUlysses, size, 1, 1)) {
      const double repeated = std::max(kKeyHeads, c);
      const double elements = kTokens / c * (2 * kHeads + 2 * repeated) * kDim;
      EXPECT_DOUBLE_EQ(own.forward, (c - 1) / c * elements * kBytes);
      EXPECT_DOUBLE_EQ(own.total, 2 * own.forward);
    }
  }
  for (const auto& own : volumes(ContextAlgorithm::kRing, 4, 1, 2))
    EXPECT_DOUBLE_EQ(own.forward, 3 * 2 * kTokens * kKeyHeads * kDim * kBytes / 4);
  for (const auto& own : volumes(ContextAlgorithm::kHybrid, 4, 2, 1)) {
    // Half the heads among two ranks, then half the tokens of one key head go round.
    const double heads = 0.5 * kTokens / 4 * (2 * kHeads + 2 * kKeyHeads) * kDim * kBytes;
    const double ring = 2 * kTokens / 2 * (kKeyHeads / 2) * kDim * kBytes;
    EXPECT_DOUBLE_EQ(own.forward, heads + ring);
    EXPECT_DOUBLE_EQ(own.total, 2 * heads + 2 * ring + 2 * ring);
  }
}

}  // namespace
}  // namespace qianli::testing
