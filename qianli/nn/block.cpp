#include "qianli/nn/block.h"

#include "qianli/nn/shared_linear.h"

namespace qianli::nn {

BlockInput::BlockInput(at::Tensor x, const ForwardPass& pass)
    : x_(std::move(x)), stream_(pass.stream), inner_(pass.inner), slices_(pass.parallel.slices) {}

std::vector<at::Tensor> BlockInput::through(std::vector<Linear> linears) const {
  SharedLinears call{.linears = std::move(linears)};
  if (whole_.defined()) return shared_linear(whole_, std::move(call));
  call.in = stream_;
  call.out = inner_;
  call.slices = slices_;
  return shared_linear(x_, std::move(call));
}

const at::Tensor& BlockInput::whole() const {
  if (!whole_.defined()) whole_ = stream_.enter(x_);
  return whole_;
}

at::Tensor BlockOutput::part(const Parallel& parallel) const {
  return last ? last.partial(y, parallel) : y;
}

at::Tensor BlockOutput::on_stream(const ForwardPass& pass) const {
  if (!last) return pass.stream.leave(y);
  SharedLinears call{.linears = {last}};
  call.in = pass.inner;
  call.out = pass.stream;
  call.slices = pass.parallel.slices;
  return shared_linear(y, std::move(call))[0];
}

}  // namespace qianli::nn
