#include "qianli/ops/dropout.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "qianli/base/random.h"
#include "qianli/ops/dispatch.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct DropoutCall : torch::CustomClassHolder {
  explicit DropoutCall(const Dropout& given) : dropout(given) {}
  Dropout dropout;
};

at::Tensor run(const at::Tensor& x_given, const Dropout& dropout, const at::Tensor& origins) {
  const at::Tensor x = x_given.contiguous();
  at::Tensor y = at::empty_like(x);
  kernels_for(Op::kDropout, x)
      ->dropout({.dtype = kernel_dtype(x),
                 .rows = x.size(0),
                 .width = x.size(1),
                 .dropout = dropout,
                 .origins = origins.data_ptr<int64_t>(),
                 .x = x.data_ptr(),
                 .y = y.data_ptr()},
                stream_of(x));
  return y;
}

class DropoutFunction : public torch::autograd::Function<DropoutFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& origins,
                            const c10::intrusive_ptr<DropoutCall>& call) {
    context->save_for_backward({origins});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return run(x, call->dropout, origins);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto call =
        c10::static_intrusive_pointer_cast<DropoutCall>(context->saved_data["call"].toCapsule());
    return {run(grads[0], call->dropout, context->get_saved_variables()[0]), {}, {}};
  }
};

}  // namespace

Dropout dropout_of(double rate, uint64_t key) {
  TORCH_CHECK(rate >= 0.0 && rate < 1.0, "[dropout] expected a rate in [0, 1), got ", rate);
  if (rate == 0.0) return {};
  const auto threshold =
      static_cast<uint32_t>(std::clamp<int64_t>(std::llround(rate * 65536.0), 1, 65535));
  return {.key = key, .threshold = threshold, .scale = 65536.0 / (65536.0 - threshold)};
}

at::Tensor dropout(const at::Tensor& x, const Dropout& dropout, const at::Tensor& origins) {
  TORCH_CHECK(x.dim() == 2 && origins.sizes() == at::IntArrayRef{x.size(0)},
              "[dropout] expected [rows, width] and an origin for each row, got ", x.sizes(),
              " and ", origins.sizes());
  if (dropout.threshold == 0) return x;
  if (kernels_for(Op::kDropout, x)) {
    return DropoutFunction::apply(x, origins.contiguous(),
                                  c10::make_intrusive<DropoutCall>(dropout));
  }
  return reference::dropout(x, dropout, origins);
}

namespace reference {

at::Tensor dropout_factors(const Dropout& dropout, const at::Tensor& origins, int64_t first,
                           int64_t count, int64_t first_head, int64_t heads, at::ScalarType dtype) {
  const at::Tensor where = origins.cpu().contiguous();
  const int64_t rows = where.size(0);
  const at::Tensor factors = at::zeros({heads, rows, count}, at::kFloat);
  const int64_t* origin = where.data_ptr<int64_t>();
  float* factor = factors.data_ptr<float>();
  std::array<uint32_t, 4> words{};
  for (int64_t head = first_head; head < first_head + heads; ++head) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = first; i < first + count; ++i, ++factor) {
        const int64_t group = i / kDropoutGroup, neighbour = i % kDropoutGroup;
        if (i == first || neighbour == 0) {
          words = philox4x32(dropout.key, static_cast<uint64_t>(origin[row]),
                             static_cast<uint64_t>(group | head << 32));
        }
        const uint32_t bits = words[static_cast<size_t>(neighbour / 2)] >> (neighbour % 2 * 16);
        *factor = (bits & 0xffff) < dropout.threshold ? 0.0f : 1.0f;
      }
    }
  }
  return factors.to(origins.device(), dtype) * dropout.scale;
}

at::Tensor dropout(const at::Tensor& x, const Dropout& dropout, const at::Tensor& origins) {
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor factors = dropout_factors(dropout, origins, 0, x.size(1), 0, 1, wide).squeeze(0);
  return (x.to(wide) * factors).to(x.scalar_type());
}

}  // namespace reference

}  // namespace qianli::ops
