#include "qianli/ops/cuda/flash_attention.h"

#include <ATen/Context.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>

#include "qianli/device/device.h"

namespace qianli::ops::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call : torch::CustomClassHolder {
  Call(AttentionLayout given, Parameter* sinks_given)
      : layout(std::move(given)), sinks(sinks_given) {}
  AttentionLayout layout;
  Parameter* sinks;
  bool sinks_trainable() const { return sinks && sinks->trainable(); }
};

int64_t longest(const std::vector<int64_t>& starts) {
  int64_t length = 0;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    length = std::max(length, starts[s + 1] - starts[s]);
  }
  return length;
}

// int32 on the device, as the kernel wants them.
at::Tensor device_starts(const std::vector<int64_t>& starts, at::Device device) {
  TORCH_CHECK(starts.back() <= std::numeric_limits<int32_t>::max(),
              "[attention] expected fewer than 2^31 rows, got ", starts.back());
  return at::tensor(std::vector<int32_t>(starts.begin(), starts.end()), at::kInt)
      .to(device, /*non_blocking=*/true);
}

// The kernel's backward adds into the gradient of q in any order unless this global switch is on.
// It is off elsewhere, because other operators refuse to run under it.
class DeterministicScope {
 public:
  DeterministicScope()
      : was_on_(context().deterministicAlgorithms()),
        warned_only_(context().deterministicAlgorithmsWarnOnly()),
        filled_(context().deterministicFillUninitializedMemory()) {
    context().setDeterministicAlgorithms(true, false);
    context().setDeterministicFillUninitializedMemory(false);
  }
  ~DeterministicScope() {
    context().setDeterministicAlgorithms(was_on_, warned_only_);
    context().setDeterministicFillUninitializedMemory(filled_);
  }
  DeterministicScope(const DeterministicScope&) = delete;
  DeterministicScope& operator=(const DeterministicScope&) = delete;

 private:
  static at::Context& context() { return at::globalContext(); }
  bool was_on_, warned_only_, filled_;
};

// A sink only scales a row of the kernel's result: with lse' = log(e^lse + e^sink), out' = out
// e^(lse - lse'). out: [Tq, heads, D]; lse: [heads, Tq], infinite where a row saw no key.
void add_sinks(const at::Tensor& sinks, at::Tensor& out, at::Tensor& lse) {
  const double infinity = std::numeric_limits<double>::infinity();
  const at::Tensor own = lse.masked_fill(lse == infinity, -infinity);
  lse = at::logaddexp(own, sinks.to(at::kFloat).unsqueeze(1));
  out = (out * at::exp(own - lse).t().unsqueeze(2)).to(out.scalar_type());
}

class FlashFunction : public torch::autograd::Function<FlashFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor&,
                            const c10::intrusive_ptr<Call>& call) {
    const AttentionLayout& layout = call->layout;
    FlashArguments a = flash_arguments(layout);
    // For one query per sequence the kernel lays its logarithms out in another way.
    if (call->sinks) a.max_q = std::max<int64_t>(a.max_q, 2);
    const at::Tensor q_starts = device_starts(layout.q_starts, q.device());
    const at::Tensor k_starts = device_starts(layout.k_starts, q.device());
    auto [out, lse, rng_state, unused, debug_mask] = at::_flash_attention_forward(
        q, k, v, q_starts, k_starts, a.max_q, a.max_k, /*dropout_p=*/0.0, layout.causal,
        /*return_debug_mask=*/false, layout.scale, a.window_left, a.window_right);
    if (call->sinks) add_sinks(call->sinks->value(), out, lse);
    context->save_for_backward({q, k, v, out, lse, q_starts, k_starts, rng_state, unused});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return out;
  }

  // The kernel takes out and lse as they are: with those of add_sinks its probabilities are right.
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const auto call =
        c10::static_intrusive_pointer_cast<Call>(context->saved_data["call"].toCapsule());
    const AttentionLayout& layout = call->layout;
    const FlashArguments a = flash_arguments(layout);
    if (call->sinks_trainable()) add_sink_gradient(*call->sinks, grads[0], saved[3], saved[4]);
    const DeterministicScope deterministic;
    auto [grad_q, grad_k, grad_v] = at::_flash_attention_backward(
        grads[0].contiguous(), saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], saved[6],
        a.max_q, a.max_k, /*dropout_p=*/0.0, layout.causal, saved[7], saved[8], layout.scale,
        a.window_left, a.window_right);
    return {grad_q, grad_k, grad_v, {}, {}};
  }

 private:
  // d sink = -sum over rows of exp(sink - lse) (dO O)
  static void add_sink_gradient(Parameter& sinks, const at::Tensor& grad, const at::Tensor& out,
                                const at::Tensor& lse) {
    const at::Tensor delta = (grad.to(at::kFloat) * out).sum(2).t();  // [heads, Tq]
    const at::Tensor share = at::exp(sinks.value().to(at::kFloat).unsqueeze(1) - lse);
    sinks.grad_to_add().sub_((share * delta).sum(1));
  }
};

at::Tensor with_whole_heads(const at::Tensor& x) { return x.stride(2) == 1 ? x : x.contiguous(); }

}  // namespace

bool flash_attention_serves(const at::Tensor& q, const at::Tensor& v,
                            const AttentionLayout& layout) {
  // Its own dropout would drop other elements than the other kernels.
  if (layout.dropout.threshold > 0 || !layout.offsets.empty() || layout.softcap != 0.0 ||
      layout.slopes.defined() || layout.chosen.defined())
    return false;
  if (!q.is_cuda() || q.size(2) % 8 != 0 || q.size(2) > 256 || v.size(2) > q.size(2)) return false;
  const auto& devices = device::CudaLibrary::get().devices();
  const auto index = static_cast<size_t>(q.device().index());
  if (index >= devices.size() || devices[index].major < 8) return false;
  return q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf;
}

FlashArguments flash_arguments(const AttentionLayout& layout) {
  FlashArguments arguments{longest(layout.q_starts), longest(layout.k_starts), {}, {}};
  // With max_q 1 the kernel takes the batch for one query per sequence; empty ones would shift it.
  const auto sequences = static_cast<int64_t>(layout.q_starts.size()) - 1;
  if (arguments.max_q == 1 && layout.q_starts.back() != sequences) arguments.max_q = 2;
  if (layout.window > 0) {
    arguments.window_left = layout.window - 1;  // and the key on the diagonal
    if (layout.causal) arguments.window_right = 0;
  }
  return arguments;
}

at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionLayout& layout, Parameter* sinks) {
  if (q.size(0) == 0) return at::empty({0, q.size(1), v.size(2)}, q.options());
  // The kernel wants values as long as the keys: MLA's are filled up with zeros.
  const int64_t missing = q.size(2) - v.size(2);
  const at::Tensor values =
      missing > 0 ? at::constant_pad_nd(v, {0, missing}) : with_whole_heads(v);
  const auto call = c10::make_intrusive<Call>(layout, sinks);
  const at::Tensor anchor =
      call->sinks_trainable() ? gradient_anchor() : gradient_anchor().detach();
  const at::Tensor out =
      FlashFunction::apply(with_whole_heads(q), with_whole_heads(k), values, anchor, call);
  return missing > 0 ? out.narrow(2, 0, v.size(2)) : out;
}

}  // namespace qianli::ops::cuda
