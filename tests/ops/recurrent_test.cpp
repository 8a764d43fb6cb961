// The recurrent ops and what stands around them: causal convolution, gated delta rule, state
// space.
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "qianli/ops/causal_conv1d.h"
#include "qianli/ops/decay.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/gated_delta_rule.h"
#include "qianli/ops/state_space.h"
#include "tests/ops/op_harness.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

TEST(CausalConv, packed_with_and_without_bias_and_silu) {
  check_all({.name = "bias, SiLU",
             .op = "causal_conv1d",
             .inputs = {normal({75, 19}, 1)},
             .parameters = {normal({19, 4}, 2), normal({19}, 3)},
             .run = [](const Tensors& x, const Parameters& p) {
               return ops::causal_conv1d(x[0], *p[0], p[1].get(), {0, 2, 2, 70, 75}, true);
             }});
  check_all({.name = "a slice of columns, width 3",
             .op = "causal_conv1d",
             .inputs = {normal({9, 40}, 1)},
             .parameters = {normal({33, 3}, 2)},
             .run = [](const Tensors& x, const Parameters& p) {
               return ops::causal_conv1d(x[0].narrow(1, 5, 33), *p[0], nullptr, {0, 9}, false);
             }});
}

TEST(CausalConv, continues_a_sequence_from_its_tail) {
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    ops::Parameter weight("weight", normal({6, 4}, 1).to(dtype)),
        bias("bias", normal({6}, 2).to(dtype));
    const at::Tensor x = normal({11, 6}, 3).to(dtype);
    const at::Tensor whole = ops::causal_conv1d(x, weight, &bias, {0, 11}, true);
    at::Tensor tail = at::zeros({3, 6}, x.options());
    std::vector<at::Tensor> parts;
    int64_t done = 0;
    for (const int64_t count : {1, 2, 5, 1, 1, 1}) {
      parts.push_back(
          ops::causal_conv1d_update(x.narrow(0, done, count), weight, &bias, tail, true));
      done += count;
    }
    expect_close(at::cat(parts, 0), whole, dtype == at::kDouble ? 1e-14 : 1e-6);
    EXPECT_TRUE(at::equal(tail, x.narrow(0, 8, 3)));
  }
}

TEST(Decay, gradients_of_step_sizes_and_decays) {
  check_gradient(
      {.name = "step size",
       .op = "state_space",
       .inputs = {normal({7, 5}, 1) * 4.0},
       .parameters = {normal({5}, 2)},
       .run = [](const Tensors& x, const Parameters& p) { return ops::step_size(x[0], *p[0]); }});
  check_gradient({.name = "log decay",
                  .op = "state_space",
                  .inputs = {normal({7, 5}, 1) * 4.0},
                  .parameters = {normal({5}, 2), normal({5}, 3)},
                  .run = [](const Tensors& x, const Parameters& p) {
                    return ops::log_decay(x[0], *p[0], *p[1]);
                  }});
}

TEST(Decay, is_float32_for_half_precision_and_does_not_overflow) {
  ops::Parameter a_log("a_log", at::zeros({1}, at::kBFloat16) + 30.0);
  ops::Parameter bias("bias", at::zeros({1}, at::kBFloat16));
  const at::Tensor g = ops::log_decay(at::zeros({1, 1}, at::kBFloat16) + 2.0, a_log, bias);
  EXPECT_EQ(g.scalar_type(), at::kFloat);
  EXPECT_NEAR(g.item<double>(), -std::exp(30.0) * std::log1p(std::exp(2.0)), 1e7);
}

struct DeltaShape {
  std::string name;
  ops::SegmentStarts starts;
  int64_t key_heads, value_heads, key_dim, value_dim;
  double decay;

  int64_t rows() const { return starts.back(); }
  int64_t segments() const { return static_cast<int64_t>(starts.size()) - 1; }
};
const std::vector<DeltaShape> kDeltaShapes = {
    {"one chunk", {0, 20}, 1, 1, 8, 8, 0.1},
    {"chunks and segments", {0, 3, 3, 70, 201}, 2, 4, 12, 20, 0.05},
    {"strong decay", {0, 130}, 1, 3, 17, 7, 4.0},
};

// Inputs: q, k, v, g, beta before their limits, initial state. Output: all outputs, then all
// states.
OpCase delta_case(const DeltaShape& s) {
  return {.name = s.name,
          .op = "gated_delta_rule",
          .inputs = {normal({s.rows(), s.key_heads, s.key_dim}, 1),
                     normal({s.rows(), s.key_heads, s.key_dim}, 2),
                     normal({s.rows(), s.value_heads, s.value_dim}, 3),
                     normal({s.rows(), s.value_heads}, 4), normal({s.rows(), s.value_heads}, 5),
                     normal({s.segments(), s.value_heads, s.key_dim, s.value_dim}, 6)},
          .run =
              [s](const Tensors& x, const Parameters&) {
                const auto wide = x[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
                const auto result =
                    ops::gated_delta_rule({.q = x[0],
                                           .k = x[1],
                                           .v = x[2],
                                           .g = at::softplus(x[3].to(wide)) * -s.decay,
                                           .beta = x[4].to(wide).sigmoid(),
                                           .starts = s.starts,
                                           .initial_state = x[5].to(wide),
                                           .keep_state = true});
                return at::cat(
                    {result.out.flatten(), result.final_state.to(x[0].scalar_type()).flatten()});
              },
          .float_tolerance = 5e-6};
}

struct StateShape {
  std::string name;
  ops::SegmentStarts starts;
  int64_t heads, groups, head_dim, state_size;

  int64_t rows() const { return starts.back(); }
  int64_t segments() const { return static_cast<int64_t>(starts.size()) - 1; }
};
const std::vector<StateShape> kStateShapes = {
    {"one chunk", {0, 20}, 1, 1, 8, 8},
    {"chunks and segments", {0, 3, 3, 70, 201}, 4, 2, 12, 20},
    {"one group", {0, 130}, 3, 1, 7, 17},
};

OpCase state_case(const StateShape& s) {
  return {.name = s.name,
          .op = "state_space",
          .inputs = {normal({s.rows(), s.heads, s.head_dim}, 1), normal({s.rows(), s.heads}, 2),
                     normal({s.rows(), s.groups, s.state_size}, 3),
                     normal({s.rows(), s.groups, s.state_size}, 4),
                     normal({s.segments(), s.heads, s.state_size, s.head_dim}, 5)},
          .parameters = {normal({s.heads}, 6), normal({s.heads}, 7)},
          .run =
              [s](const Tensors& x, const Parameters& p) {
                const auto wide = x[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
                const auto result = ops::state_space({.x = x[0],
                                                      .dt = at::softplus(x[1].to(wide) - 2.0),
                                                      .b = x[2],
                                                      .c = x[3],
                                                      .starts = s.starts,
                                                      .initial_state = x[4].to(wide),
                                                      .keep_state = true},
                                                     *p[0], *p[1]);
                return at::cat(
                    {result.out.flatten(), result.final_state.to(x[0].scalar_type()).flatten()});
              },
          .float_tolerance = 5e-6};
}

TEST(GatedDeltaRule, gradients_and_kernels) {
  for (const auto& shape : kDeltaShapes) check_all(delta_case(shape));
}

TEST(StateSpace, gradients_and_kernels) {
  for (const auto& shape : kStateShapes) check_all(state_case(shape));
}

// In float64 the chunked form serves unless the reference, token by token, is asked for.
void expect_chunks_equal_recurrence(const OpCase& op_case) {
  SCOPED_TRACE(op_case.name);
  ops::choose_backends({{op_case.op, "torch"}});
  const OpResult chunked = evaluate(op_case, at::kDouble);
  ops::choose_backends({{op_case.op, "reference"}});
  const OpResult recurrent = evaluate(op_case, at::kDouble);
  ops::choose_backends({});
  expect_close(chunked.output, recurrent.output, 1e-12, "output");
  for (size_t i = 0; i < recurrent.input_grads.size(); ++i) {
    expect_close(chunked.input_grads[i], recurrent.input_grads[i], 1e-12,
                 "input " + std::to_string(i));
  }
  for (size_t i = 0; i < recurrent.parameter_grads.size(); ++i) {
    expect_close(chunked.parameter_grads[i], recurrent.parameter_grads[i], 1e-12,
                 "parameter " + std::to_string(i));
  }
}

TEST(GatedDeltaRule, chunks_equal_the_recurrence_to_float64_rounding) {
  for (const auto& shape : kDeltaShapes) expect_chunks_equal_recurrence(delta_case(shape));
}

TEST(StateSpace, chunks_equal_the_recurrence_to_float64_rounding) {
  for (const auto& shape : kStateShapes) expect_chunks_equal_recurrence(state_case(shape));
}

TEST(GatedDeltaRule, equals_the_recurrence_where_beta_is_zero) {
  const at::Tensor q = normal({9, 1, 4}, 1), v = normal({9, 1, 4}, 2);
  for (const char* backend : {"native", "torch"}) {
    const auto gradients = [&](const char* chosen) {
      ops::choose_backends({{"gated_delta_rule", chosen}});
      at::Tensor beta = at::zeros({9, 1}, at::kFloat).requires_grad_(true);
      const auto result = ops::gated_delta_rule({.q = q.to(at::kFloat),
                                                 .k = q.flip({0}).to(at::kFloat),
                                                 .v = v.to(at::kFloat),
                                                 .g = at::zeros({9, 1}, at::kFloat),
                                                 .beta = beta,
                                                 .starts = {0, 9}});
      result.out.sum().backward();
      ops::choose_backends({});
      return beta.grad();
    };
    expect_close(gradients(backend), gradients("reference"), 1e-6, backend);
  }
}

// Rows [first, first + count) of the inputs, one segment, from a state.
ops::DeltaRuleOutput run_rows(const Tensors& x, int64_t first, int64_t count,
                              const at::Tensor& state) {
  const auto rows = [&](size_t i) { return x[i].narrow(0, first, count); };
  return ops::gated_delta_rule({.q = rows(0),
                                .k = rows(1),
                                .v = rows(2),
                                .g = rows(3),
                                .beta = rows(4),
                                .starts = {0, count},
                                .initial_state = state,
                                .keep_state = true});
}

TEST(GatedDeltaRule, segments_do_not_leak_and_a_state_continues_a_sequence) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const double tolerance = dtype == at::kDouble ? 1e-13 : 2e-6;
    const Tensors x{normal({150, 2, 8}, 1).to(dtype), normal({150, 2, 8}, 2).to(dtype),
                    normal({150, 2, 8}, 3).to(dtype), -normal({150, 2}, 4).abs().to(dtype),
                    normal({150, 2}, 5).sigmoid().to(dtype)};
    const auto packed = ops::gated_delta_rule(
        {.q = x[0], .k = x[1], .v = x[2], .g = x[3], .beta = x[4], .starts = {0, 70, 150}});
    const auto first = run_rows(x, 0, 70, {}), second = run_rows(x, 70, 80, {});
    expect_close(packed.out, at::cat({first.out, second.out}, 0), tolerance, "packed");
    const auto whole = run_rows(x, 0, 150, {});
    EXPECT_GT(relative_error(whole.out, packed.out), 1e-2);
    at::Tensor state = first.final_state;
    std::vector<at::Tensor> outs{first.out};
    for (int64_t t = 70; t < 150; ++t) {
      const auto one = run_rows(x, t, 1, state);
      outs.push_back(one.out);
      state = one.final_state;
    }
    expect_close(at::cat(outs, 0), whole.out, tolerance, "continued");
    expect_close(state, whole.final_state, tolerance, "state");
  }
}

TEST(StateSpace, segments_do_not_leak_and_a_state_continues_a_sequence) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const double tolerance = dtype == at::kDouble ? 1e-13 : 2e-6;
    ops::Parameter a_log("a_log", normal({4}, 1).to(dtype)), skip("skip", normal({4}, 2).to(dtype));
    const at::Tensor x = normal({150, 4, 8}, 3).to(dtype), dt = normal({150, 4}, 4).abs().to(dtype);
    const at::Tensor b = normal({150, 2, 12}, 5).to(dtype), c = normal({150, 2, 12}, 6).to(dtype);
    const auto run = [&](int64_t first, int64_t count, const at::Tensor& state) {
      return ops::state_space({.x = x.narrow(0, first, count),
                               .dt = dt.narrow(0, first, count),
                               .b = b.narrow(0, first, count),
                               .c = c.narrow(0, first, count),
                               .starts = {0, count},
                               .initial_state = state,
                               .keep_state = true},
                              a_log, skip);
    };
    const auto packed =
        ops::state_space({.x = x, .dt = dt, .b = b, .c = c, .starts = {0, 70, 150}}, a_log, skip);
    const auto first = run(0, 70, {}), second = run(70, 80, {}), whole = run(0, 150, {});
    expect_close(packed.out, at::cat({first.out, second.out}, 0), tolerance, "packed");
    EXPECT_GT(relative_error(whole.out, packed.out), 1e-2);
    at::Tensor state = first.final_state;
    std::vector<at::Tensor> outs{first.out};
    for (int64_t t = 70; t < 150; ++t) {
      const auto one = run(t, 1, state);
      outs.push_back(one.out);
      state = one.final_state;
    }
    expect_close(at::cat(outs, 0), whole.out, tolerance, "continued");
    expect_close(state, whole.final_state, tolerance, "state");
  }
}

TEST(GatedDeltaRule, refuses_shapes_that_do_not_fit) {
  const at::Tensor q = at::zeros({4, 2, 8}), v = at::zeros({4, 3, 8}), gate = at::zeros({4, 3});
  EXPECT_THROW(
      ops::gated_delta_rule({.q = q, .k = q, .v = v, .g = gate, .beta = gate, .starts = {0, 4}}),
      c10::Error);
  const at::Tensor two = at::zeros({4, 2});
  EXPECT_THROW(
      ops::gated_delta_rule({.q = q, .k = q, .v = q, .g = two, .beta = two, .starts = {0, 3}}),
      c10::Error);
}

}  // namespace
}  // namespace qianli::testing
