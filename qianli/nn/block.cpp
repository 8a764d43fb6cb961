#include "qianli/nn/block.h"

#include "qianli/nn/shared_linear.h"
#include "qianli/nn/tensor_parallel.h"

namespace qianli::nn {

BlockInput::BlockInput(at::Tensor x, int64_t tokens, const Parallel& parallel)
    : x_(std::move(x)), tokens_(tokens), parallel_(&parallel) {}

std::vector<at::Tensor> BlockInput::through(std::vector<Linear> linears) const {
  SharedLinears call{.linears = std::move(linears)};
  if (whole_.defined()) return shared_linear(whole_, std::move(call));
  call.in = stream_side(tokens_, *parallel_);
  call.slices = parallel_->slices;
  return shared_linear(x_, std::move(call));
}

const at::Tensor& BlockInput::whole() const {
  if (!whole_.defined()) whole_ = enter_block(x_, tokens_, *parallel_);
  return whole_;
}

at::Tensor BlockOutput::part(const Parallel& parallel) const {
  return last ? last.partial(y, parallel) : y;
}

at::Tensor BlockOutput::on_stream(int64_t tokens, const Parallel& parallel) const {
  if (!last) return leave_block(y, parallel);
  SharedLinears call{.linears = {last}};
  call.out = stream_side(tokens, parallel);
  call.slices = parallel.slices;
  return shared_linear(y, std::move(call))[0];
}

}  // namespace qianli::nn
