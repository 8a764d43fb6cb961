// Linear layers with what ranks exchange before and behind them, against plain products.
#include "qianli/nn/shared_linear.h"

#include <ATen/Functions.h>
#include <ATen/record_function.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "qianli/device/allocator.h"
#include "qianli/dist/rank_threads.h"
#include "qianli/dist/under_way.h"
#include "qianli/nn/parallel.h"
#include "qianli/ops/deferred_gradients.h"
#include "tests/support/engine_support.h"

namespace qianli::testing {
namespace {

constexpr double kTolerance = 1e-12;

at::Tensor values(std::vector<int64_t> shape, int64_t seed) {
  at::Tensor x = at::arange(1, 1 + c10::multiply_integers(shape), at::kDouble);
  return (x * (0.37 + 0.11 * static_cast<double>(seed))).sin().view(shape);
}

// What stands where in a test: the whole layer, and this rank's part of it.
struct Layer {
  Layer(const dist::World& world, int64_t tokens, bool sequence)
      : parallel{.tensor = world.all("tensor"), .sequence = sequence}, tokens(tokens) {}

  plan::IndexRange share(int64_t n) const {
    return plan::Share{parallel.tensor.rank(), parallel.tensor.size()}.of(n);
  }
  at::Tensor part(const at::Tensor& whole, int64_t axis) const {
    const plan::IndexRange own = share(whole.size(axis));
    return whole.narrow(axis, own.begin, own.count()).contiguous();
  }
  at::Tensor on_stream(const at::Tensor& whole) const {
    return parallel.sequence ? part(whole, 0) : whole.clone();
  }

  // Between the blocks.
  nn::Side stream() const {
    nn::Side side{.group = &parallel.tensor};
    if (parallel.sequence) side.rows = nn::SharedRows::even(tokens, parallel.tensor);
    return side;
  }
  // First layers of a block.
  std::vector<at::Tensor> enter(const at::Tensor& x, std::vector<nn::Linear> linears) const {
    nn::SharedLinears call{.linears = std::move(linears)};
    call.in = stream();
    call.slices = parallel.slices;
    return nn::shared_linear(x, std::move(call));
  }
  // The last one.
  at::Tensor leave(const at::Tensor& y, const nn::Linear& linear) const {
    nn::SharedLinears call{.linears = {linear}};
    call.out = stream();
    call.slices = parallel.slices;
    return nn::shared_linear(y, std::move(call))[0];
  }

  nn::Parallel parallel;
  int64_t tokens;
};

std::unique_ptr<ops::Parameter> trainable(const at::Tensor& value) {
  auto parameter = std::make_unique<ops::Parameter>("weight", value);
  parameter->attach_grad(at::zeros_like(value));
  return parameter;
}

struct Case {
  int64_t ranks, tokens, slices;
  bool sequence;
  bool later;  // weights' gradients
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool sequence : {false, true}) {
    for (const bool later : {false, true}) {
      for (const int64_t slices : {1, 2, 5}) {
        all.push_back({2, 8, slices, sequence, later});
        all.push_back({3, 10, slices, sequence, later});
        all.push_back({3, 2, slices, sequence, later});  // a rank has no row
      }
    }
  }
  return all;
}

// loss = sum(y * cotangent), backward with the weights' gradients at once or later.
void go_back(const at::Tensor& loss, const ops::DeferredGradients::Pointer& gradients) {
  if (gradients) gradients->defer();
  loss.backward();
  if (gradients) gradients->run();
}

TEST(SharedLinear, equals_the_plain_products) {
  constexpr int64_t kIn = 6, kOut = 7;
  for (const Case& c : cases()) {
    SCOPED_TRACE(fmt::format("{} tokens on {} ranks in {} slices{}{}", c.tokens, c.ranks, c.slices,
                             c.sequence ? ", sequence" : "", c.later ? ", later" : ""));
    const at::Tensor x = values({c.tokens, kIn}, 1), w = values({kOut, kIn}, 2),
                     w2 = values({kIn, kOut}, 3), b = values({kOut}, 4), b2 = values({kIn}, 5),
                     y = at::addmm(b, x, w.t()), grad_y = values({c.tokens, kOut}, 6),
                     z = at::addmm(b2, y, w2.t()), grad_z = values({c.tokens, kIn}, 7);
    dist::run_ranks(c.ranks, [&](const dist::World& world) {
      Layer layer(world, c.tokens, c.sequence);
      layer.parallel.slices = c.slices;
      const auto gradients = c.later ? c10::make_intrusive<ops::DeferredGradients>()
                                     : ops::DeferredGradients::Pointer();
      const ops::DeferredGradients::Recording recording(gradients);
      // The first layer of a block: rows of its weight; two of them share the input.
      const auto rows = trainable(layer.part(w, 0)), twice = trainable(layer.part(2 * w, 0)),
                 bias = trainable(layer.part(b, 0));
      const at::Tensor in = layer.on_stream(x).requires_grad_(true);
      const auto found = layer.enter(in, {{rows.get(), bias.get()}, {twice.get(), nullptr}});
      expect_close(found[0], layer.part(y, 1), kTolerance, "first layer");
      const at::Tensor grad = layer.part(grad_y, 1);
      go_back(((found[0] + found[1]) * grad).sum(), gradients);
      expect_close(in.grad(), layer.on_stream(3 * grad_y.mm(w)), kTolerance, "its input");
      expect_close(rows->grad(), layer.part(grad_y.t().mm(x), 0), kTolerance, "its weight");
      expect_close(twice->grad(), layer.part(grad_y.t().mm(x), 0), kTolerance, "the other weight");
      expect_close(bias->grad(), layer.part(grad_y.sum(0), 0), kTolerance, "its bias");
      // The last one: columns of its weight.
      const auto columns = trainable(layer.part(w2, 1)), once = trainable(b2);
      const at::Tensor middle = layer.part(y, 1).requires_grad_(true);
      const at::Tensor out = layer.leave(middle, {columns.get(), once.get()});
      expect_close(out, layer.on_stream(z), kTolerance, "last layer");
      go_back((out * layer.on_stream(grad_z)).sum(), gradients);
      expect_close(middle.grad(), layer.part(grad_z.mm(w2), 1), kTolerance, "its input");
      expect_close(columns->grad(), layer.part(grad_z.t().mm(y), 1), kTolerance, "its weight");
      if (layer.parallel.tensor.rank() == 0) {
        expect_close(once->grad(), grad_z.sum(0), kTolerance, "its bias");
      }
    });
  }
}

// How many collectives are under way at every matrix product of the thread.
class Products {
 public:
  Products()
      : handle_(at::addThreadLocalCallback(
            at::RecordFunctionCallback(&Products::note).scopes({at::RecordScope::FUNCTION}))) {
    under_way.clear();
  }
  ~Products() { at::removeCallback(handle_); }
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  static thread_local std::vector<int64_t> under_way;

 private:
  static std::unique_ptr<at::ObserverContext> note(const at::RecordFunction& function) {
    const std::string name = function.name();
    if (name == "aten::mm" || name == "aten::addmm") under_way.push_back(dist::under_way());
    return nullptr;
  }
  at::CallbackHandle handle_;
};
thread_local std::vector<int64_t> Products::under_way;

using Counts = std::vector<int64_t>;

TEST(SharedLinear, computes_while_tokens_travel) {
  for (const bool sequence : {false, true}) {
    SCOPED_TRACE(sequence);
    dist::run_ranks(2, [&](const dist::World& world) {
      Layer layer(world, 16, sequence);
      layer.parallel.slices = 4;
      const auto w = trainable(values({8, 8}, 1));
      const at::Tensor x = values({sequence ? 8 : 16, 8}, 2).requires_grad_(true),
                       middle = values({16, 8}, 3).requires_grad_(true);
      const Products products;
      // Each but the last slice is computed while the next one comes.
      const at::Tensor y = layer.enter(x, {{w.get(), nullptr}})[0];
      EXPECT_EQ(Products::under_way, sequence ? (Counts{1, 1, 1, 0}) : Counts{0});
      Products::under_way.clear();
      // The input's gradient while the input comes again, the weight's while that is summed.
      y.sum().backward();
      EXPECT_EQ(Products::under_way, sequence ? (Counts{1, 1}) : (Counts{0, 1}));
      Products::under_way.clear();
      // Slice i while those before it are summed.
      const at::Tensor z = layer.leave(middle, {w.get(), nullptr});
      EXPECT_EQ(Products::under_way, (Counts{0, 1, 2, 3}));
      Products::under_way.clear();
      z.sum().backward();
      EXPECT_EQ(Products::under_way, sequence ? (Counts{1, 1, 1, 0, 0}) : (Counts{0, 0}));
    });
  }
}

// Bytes in use by tensors of all ranks. The threads of a backend let go a moment after a collective
// has ended.
int64_t settled_bytes(const dist::Group& group) {
  group.barrier();
  uint64_t least = device::host_memory().in_use_bytes;
  for (int i = 0; i < 50; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    least = std::min(least, device::host_memory().in_use_bytes);
  }
  group.barrier();
  return static_cast<int64_t>(least);
}

// Bytes that tensors hold more after `make` than before, on all ranks together, besides what it
// returns.
template <class Make>
int64_t kept_bytes(const dist::Group& group, const Make& make) {
  const int64_t before = settled_bytes(group);
  const at::Tensor result = make();
  return settled_bytes(group) - before - group.size() * static_cast<int64_t>(result.nbytes());
}

TEST(SharedLinear, keeps_a_ranks_share_of_its_input) {
  device::install_caching_allocator();
  constexpr int64_t kTokens = 4096, kIn = 32, kOut = 8, kInput = kTokens * kIn * 8;
  for (const int64_t ranks : {2, 4}) {
    dist::run_ranks(ranks, [&](const dist::World& world) {
      const Layer layer(world, kTokens, /*sequence=*/true);
      const auto w = trainable(values({kOut, kIn}, 1));
      // What comes in is kept by the rank itself: of the result nothing else is.
      const auto kept = [&](bool whole) {
        return kept_bytes(layer.parallel.tensor, [&] {
          const at::Tensor x = at::ones({kTokens / ranks, kIn}, at::kDouble).requires_grad_(true);
          if (!whole) return layer.enter(x, {{w.get(), nullptr}})[0];
          return nn::shared_linear(layer.stream().enter(x), {.linears = {{w.get(), nullptr}}})[0];
        });
      };
      EXPECT_NEAR(static_cast<double>(kept(false)), kInput, 0.3 * kInput);  // blocks are rounded
      EXPECT_GE(kept(true), (ranks + 0.9) * kInput);
    });
  }
}

}  // namespace
}  // namespace qianli::testing
