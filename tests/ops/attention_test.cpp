#include "qianli/ops/attention.h"

#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "qianli/base/random.h"
#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

struct AttentionCase {
  std::string name;
  int64_t heads, key_heads, dim, value_dim;
  std::vector<int64_t> q_starts, k_starts;
  double softcap = 0.0;
  bool causal = true;
  int64_t window = 0;
  bool slopes = false, sinks = false;
  int64_t chosen = 0;  // keys per query
  std::vector<int64_t> offsets = {};
  double dropout = 0.0;
};

// Sequences of several samples, which begin anywhere in them.
std::vector<int64_t> origins_of(const AttentionCase& c) {
  std::vector<int64_t> origins;
  for (size_t s = 0; s + 1 < c.q_starts.size(); ++s) {
    const auto sample = static_cast<int64_t>(s + 3) << 32;
    origins.push_back(sample + 1000 + 13 * static_cast<int64_t>(s));
  }
  return origins;
}

// Of every query `count` keys of its sequence, spread out; then some that are none.
at::Tensor some_keys(const AttentionCase& c) {
  at::Tensor keys = at::full({c.q_starts.back(), c.chosen + 2}, -1, at::kLong);
  for (size_t s = 0; s + 1 < c.q_starts.size(); ++s) {
    const int64_t length = c.k_starts[s + 1] - c.k_starts[s];
    for (int64_t row = c.q_starts[s]; row < c.q_starts[s + 1]; ++row) {
      for (int64_t i = 0; i < std::min(c.chosen, length); ++i) {
        keys.data_ptr<int64_t>()[row * (c.chosen + 2) + i] =
            (row * 7 + i * (length / std::min(c.chosen, length))) % length;
      }
      keys.data_ptr<int64_t>()[row * (c.chosen + 2) + c.chosen] = length + 3;
    }
  }
  return keys;
}

ops::AttentionLayout layout_of(const AttentionCase& c) {
  return {.q_starts = c.q_starts,
          .k_starts = c.k_starts,
          .causal = c.causal,
          .window = c.window,
          .scale = 1.0 / std::sqrt(static_cast<double>(c.dim)),
          .softcap = c.softcap,
          .slopes = c.slopes ? ops::alibi_slopes(c.heads) : at::Tensor(),
          .chosen = c.chosen > 0 ? some_keys(c) : at::Tensor(),
          .offsets = c.offsets,
          .dropout = ops::dropout_of(c.dropout, 0x123456789abcdef),
          .origins = origins_of(c),
          .first_head = 6};
}

void check_case(const AttentionCase& c) {
  const int64_t q_rows = c.q_starts.back(), k_rows = c.k_starts.back();
  check_all(
      {.name = c.name,
       .op = "attention",
       .inputs = {normal({q_rows, c.heads, c.dim}, 1), normal({k_rows, c.key_heads, c.dim}, 2),
                  normal({k_rows, c.key_heads, c.value_dim}, 3)},
       .parameters = c.sinks ? Tensors{normal({c.heads}, 4)} : Tensors{},
       .run =
           [layout = layout_of(c)](const Tensors& x, const Parameters& p) {
             return ops::attention(x[0], x[1], x[2], layout, p.empty() ? nullptr : p[0].get());
           },
       .float_tolerance = 5e-6,
       .bfloat16_tolerance = 4e-2});
}

TEST(Attention, causal_packed_grouped_and_windowed) {
  check_case({"one sequence", 2, 2, 8, 8, {0, 7}, {0, 7}});
  check_case({"packed", 4, 2, 16, 16, {0, 1, 6, 13}, {0, 1, 6, 13}});
  check_case({"long", 2, 1, 64, 64, {0, 150}, {0, 150}});
  check_case({.name = "window",
              .heads = 3,
              .key_heads = 3,
              .dim = 8,
              .value_dim = 8,
              .q_starts = {0, 9, 40},
              .k_starts = {0, 9, 40},
              .window = 4});
  check_case({.name = "not causal",
              .heads = 2,
              .key_heads = 1,
              .dim = 8,
              .value_dim = 8,
              .q_starts = {0, 5},
              .k_starts = {0, 5},
              .causal = false});
  check_case({"decoding", 4, 2, 8, 8, {0, 2}, {0, 11}});
}

// Queries that stand before, among and behind the keys.
TEST(Attention, where_the_caller_says_how_queries_stand_to_keys) {
  for (const int64_t window : {0, 50}) {
    for (const bool causal : {true, false}) {
      check_case({.name = "offsets",
                  .heads = 4,
                  .key_heads = 2,
                  .dim = 16,
                  .value_dim = 16,
                  .q_starts = {0, 70, 90, 170, 170, 200},
                  .k_starts = {0, 150, 190, 190, 220, 310},
                  .softcap = causal ? 0.0 : 2.0,
                  .causal = causal,
                  .window = window,
                  .slopes = true,
                  .offsets = {-20, 130, 5, 0, 40}});
    }
  }
  check_case({.name = "behind all keys, few queries",
              .heads = 4,
              .key_heads = 1,
              .dim = 8,
              .value_dim = 8,
              .q_starts = {0, 2},
              .k_starts = {0, 90},
              .window = 60,
              .offsets = {100}});
  check_case({.name = "before all keys",
              .heads = 2,
              .key_heads = 2,
              .dim = 8,
              .value_dim = 8,
              .q_starts = {0, 80},
              .k_starts = {0, 70},
              .offsets = {-79}});
}

TEST(Attention, with_values_of_another_size) {
  check_case({"MLA", 3, 3, 24, 16, {0, 4, 90}, {0, 4, 90}});
  check_case({"shared latent", 6, 1, 36, 32, {0, 20}, {0, 70}});
  check_case({"decoding", 6, 1, 36, 40, {0, 1}, {0, 70}});
}

TEST(Attention, with_a_cap_on_the_scores) {
  for (const double cap : {0.7, 50.0}) {
    check_case({.name = "cap",
                .heads = 4,
                .key_heads = 2,
                .dim = 16,
                .value_dim = 16,
                .q_starts = {0, 5, 80},
                .k_starts = {0, 5, 80},
                .softcap = cap});
    check_case({.name = "cap and window",
                .heads = 2,
                .key_heads = 2,
                .dim = 16,
                .value_dim = 16,
                .q_starts = {0, 80},
                .k_starts = {0, 100},
                .softcap = cap,
                .window = 20});
  }
}

TEST(Attention, with_sinks) {
  check_case({.name = "sinks",
              .heads = 4,
              .key_heads = 2,
              .dim = 16,
              .value_dim = 16,
              .q_starts = {0, 5, 80},
              .k_starts = {0, 5, 80},
              .sinks = true});
  check_case({.name = "sinks and window",
              .heads = 4,
              .key_heads = 4,
              .dim = 8,
              .value_dim = 8,
              .q_starts = {0, 40},
              .k_starts = {0, 90},
              .window = 8,
              .sinks = true});
  check_case({.name = "sinks, decoding",
              .heads = 4,
              .key_heads = 1,
              .dim = 8,
              .value_dim = 8,
              .q_starts = {0, 1},
              .k_starts = {0, 90},
              .sinks = true});
}

TEST(Attention, with_slopes) {
  check_case({.name = "slopes",
              .heads = 6,
              .key_heads = 6,
              .dim = 16,
              .value_dim = 16,
              .q_starts = {0, 5, 80},
              .k_starts = {0, 5, 80},
              .slopes = true});
  check_case({.name = "slopes, shared keys",
              .heads = 6,
              .key_heads = 2,
              .dim = 16,
              .value_dim = 16,
              .q_starts = {0, 3},
              .k_starts = {0, 80},
              .slopes = true});
  check_case({.name = "slopes, not causal",
              .heads = 2,
              .key_heads = 2,
              .dim = 16,
              .value_dim = 16,
              .q_starts = {0, 30},
              .k_starts = {0, 30},
              .causal = false,
              .slopes = true});
}

TEST(Attention, over_chosen_keys) {
  check_case({.name = "chosen",
              .heads = 4,
              .key_heads = 4,
              .dim = 12,
              .value_dim = 8,
              .q_starts = {0, 6, 160},
              .k_starts = {0, 6, 160},
              .chosen = 5});
  check_case({.name = "chosen, shared latent",
              .heads = 6,
              .key_heads = 1,
              .dim = 36,
              .value_dim = 32,
              .q_starts = {0, 3},
              .k_starts = {0, 150},
              .chosen = 20});
  check_case({.name = "chosen, one column",
              .heads = 2,
              .key_heads = 2,
              .dim = 16,
              .value_dim = 16,
              .q_starts = {0, 2},
              .k_starts = {0, 300},
              .chosen = 90});
}

AttentionCase every_switch(std::vector<int64_t> q_starts, std::vector<int64_t> k_starts,
                           int64_t chosen) {
  return {.name = "every switch",
          .heads = 4,
          .key_heads = 2,
          .dim = 20,
          .value_dim = 12,
          .q_starts = std::move(q_starts),
          .k_starts = std::move(k_starts),
          .softcap = 3.0,
          .window = 40,
          .slopes = true,
          .sinks = true,
          .chosen = chosen};
}

TEST(Attention, with_every_switch_at_once) {
  for (const int64_t chosen : {0, 9}) {
    check_case(every_switch({0, 70, 75}, {0, 90, 95}, chosen));
    check_case(every_switch({0, 2}, {0, 90}, chosen));
  }
}

TEST(Attention, with_dropout) {
  const auto with = [](AttentionCase c) {
    c.name += ", dropout";
    c.dropout = 0.3;
    check_case(c);
  };
  with({"one sequence", 2, 2, 8, 8, {0, 7}, {0, 7}});
  with({"packed", 4, 2, 16, 16, {0, 1, 6, 13}, {0, 1, 6, 13}});
  with({"long", 2, 1, 64, 64, {0, 150}, {0, 150}});
  with({"values of another size", 3, 3, 24, 16, {0, 4, 90}, {0, 4, 90}});
  with({"few queries", 6, 2, 8, 8, {0, 2}, {0, 70}});
  with({.name = "not causal",
        .heads = 2,
        .key_heads = 1,
        .dim = 8,
        .value_dim = 8,
        .q_starts = {0, 70},
        .k_starts = {0, 75},
        .causal = false});
  with({.name = "offsets",
        .heads = 4,
        .key_heads = 2,
        .dim = 16,
        .value_dim = 16,
        .q_starts = {0, 70, 90, 170, 170, 200},
        .k_starts = {0, 150, 190, 190, 220, 310},
        .window = 50,
        .offsets = {-20, 130, 5, 0, 40}});
  for (const int64_t chosen : {0, 9}) with(every_switch({0, 70, 75}, {0, 90, 95}, chosen));
  with({.name = "few chosen",
        .heads = 2,
        .key_heads = 2,
        .dim = 16,
        .value_dim = 16,
        .q_starts = {0, 2},
        .k_starts = {0, 300},
        .chosen = 90});
}

// With equal scores and the identity for values the output shows what was dropped.
TEST(Attention, drops_what_the_generator_says) {
  const int64_t length = 70, heads = 2, first = (int64_t{9} << 32) + 13;
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const ops::AttentionLayout layout{.q_starts = {0, length},
                                      .k_starts = {0, length},
                                      .causal = false,
                                      .dropout = ops::dropout_of(0.25, 77),
                                      .origins = {first},
                                      .first_head = 4};
    const at::Tensor zero = at::zeros({length, heads, 8}, dtype);
    const at::Tensor values = at::eye(length, dtype).unsqueeze(1).expand({length, heads, length});
    const at::Tensor out = ops::attention(zero, zero, values, layout).to(at::kDouble) * length;
    int64_t kept = 0;
    for (int64_t q = 0; q < length; ++q) {
      for (int64_t k = 0; k < length; ++k) {
        for (int64_t h = 0; h < heads; ++h) {
          const uint64_t position = 13 + static_cast<uint64_t>(k);
          const auto words = philox4x32(77, static_cast<uint64_t>(first + q),
                                        position / 8 | static_cast<uint64_t>(4 + h) << 32);
          const uint32_t bits = words[position % 8 / 2] >> (position % 2 * 16) & 0xffff;
          const bool stays = bits >= 16384;
          kept += stays ? 1 : 0;
          ASSERT_NEAR(out[q][h][k].item<double>(), stays ? 4.0 / 3.0 : 0.0, 1e-5)
              << q << ' ' << k << ' ' << h;
        }
      }
    }
    EXPECT_NEAR(static_cast<double>(kept) / (length * length * heads), 0.75, 0.02);
  }
}

// A cache by heads, values that are the first part of the keys, queries out of a wider projection.
TEST(Attention, of_rows_and_heads_anywhere) {
  const ops::AttentionLayout layout{.q_starts = {0, 3}, .k_starts = {0, 40}, .scale = 0.2};
  check_all({.name = "views",
             .op = "attention",
             .inputs = {normal({3, 100}, 1), normal({2, 40, 24}, 2)},
             .run =
                 [layout](const Tensors& x, const Parameters&) {
                   const at::Tensor q = x[0].narrow(1, 3, 96).unflatten(1, {4, 24}),
                                    k = x[1].transpose(0, 1);
                   return ops::attention(q, k, k.narrow(2, 0, 16), layout);
                 },
             .float_tolerance = 5e-6,
             .bfloat16_tolerance = 4e-2});
}

TEST(Attention, a_query_that_sees_nothing_gets_zero) {
  ops::Parameter sinks("sinks", normal({2}, 4).to(at::kFloat));
  for (ops::Parameter* given : {static_cast<ops::Parameter*>(nullptr), &sinks}) {
    for (const int64_t queries : {3, 70}) {
      ops::AttentionLayout layout{.q_starts = {0, queries}, .k_starts = {0, queries}, .scale = 0.2};
      layout.chosen = at::full({queries, 1}, -1, at::kLong);
      layout.chosen[1][0] = 0;
      std::vector<at::Tensor> x;
      for (uint64_t i = 0; i < 3; ++i)
        x.push_back(normal({queries, 2, 8}, i).to(at::kFloat).requires_grad_(true));
      const at::Tensor out = ops::attention(x[0], x[1], x[2], layout, given);
      out.sum().backward();
      EXPECT_EQ(out[0].abs().max().item<float>(), 0.0f);
      if (!given) expect_close(out[1], x[2][0], 1e-6);
      EXPECT_EQ(x[0].grad()[0].abs().max().item<float>(), 0.0f);
      EXPECT_TRUE(x[1].grad().isfinite().all().item<bool>());
      EXPECT_EQ(x[2].grad()[2].abs().max().item<float>(), 0.0f);
    }
  }
}

TEST(AlibiSlopes, follow_the_rule_for_any_number_of_heads) {
  const at::Tensor eight = ops::alibi_slopes(8);
  for (int64_t i = 0; i < 8; ++i)
    EXPECT_DOUBLE_EQ(eight[i].item<double>(), std::exp2(-static_cast<double>(i + 1)));
  // Baichuan-13B: 40 heads, 32 of the power of two and every second one of 64.
  const at::Tensor forty = ops::alibi_slopes(40);
  EXPECT_DOUBLE_EQ(forty[31].item<double>(), std::exp2(-8.0));
  for (int64_t i = 0; i < 8; ++i)
    EXPECT_DOUBLE_EQ(forty[32 + i].item<double>(),
                     std::exp2(-0.125 * static_cast<double>(2 * i + 1)));
  EXPECT_DOUBLE_EQ(ops::alibi_slopes(1)[0].item<double>(), std::exp2(-8.0));
}

TEST(Attention, refuses_shapes_that_do_not_fit) {
  const at::Tensor q = normal({4, 3, 8}, 1).to(at::kFloat), k = normal({4, 2, 8}, 2).to(at::kFloat);
  EXPECT_THROW(ops::attention(q, k, k, {.q_starts = {0, 4}, .k_starts = {0, 4}}), c10::Error);
  const at::Tensor one = k.narrow(1, 0, 1);
  EXPECT_THROW(ops::attention(q, one, one, {.q_starts = {0, 4}, .k_starts = {0, 5}}), c10::Error);
  EXPECT_THROW(
      ops::attention(q, one, one,
                     {.q_starts = {0, 4}, .k_starts = {0, 4}, .slopes = ops::alibi_slopes(2)}),
      c10::Error);
}

}  // namespace
}  // namespace qianli::testing
