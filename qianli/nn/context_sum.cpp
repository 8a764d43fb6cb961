#include "qianli/nn/context_sum.h"

#include <torch/csrc/autograd/custom_function.h>

namespace qianli::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class SumOver : public torch::autograd::Function<SumOver> {
 public:
  static at::Tensor forward(AutogradContext*, const at::Tensor& own, const dist::Group& group) {
    const at::Tensor sum = own.contiguous().clone();
    group.all_reduce(sum);
    return sum;
  }
  static variable_list backward(AutogradContext*, const variable_list& grads) {
    return {grads[0], {}};
  }
};

}  // namespace

at::Tensor sum_over(const at::Tensor& own, const dist::Group& group) {
  return group.alone() ? own : SumOver::apply(own, group);
}

ops::TokenSegments token_segments(const DecoderInput& input, const dist::Group& context) {
  if (!input.context) return input.segment_starts;
  std::vector<int64_t> lengths;
  const auto& starts = input.context->segment_starts();
  for (size_t s = 1; s < starts.size(); ++s) lengths.push_back(starts[s] - starts[s - 1]);
  return {input.segment_starts, std::move(lengths),
          [context](const at::Tensor& own) { return sum_over(own, context); }};
}

}  // namespace qianli::nn
