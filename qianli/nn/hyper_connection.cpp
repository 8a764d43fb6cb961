#include "qianli/nn/hyper_connection.h"

#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>

namespace qianli::nn {

HyperConnection::HyperConnection(const model::ModelSpec& spec, ParameterSet& parameters,
                                 const std::string& prefix, bool mixes)
    : weight_(parameters.find(prefix + ".weight")),
      bias_(parameters.find(prefix + ".bias")),
      scale_(parameters.find(prefix + ".scale")),
      norm_eps_(spec.norm_eps) {
  if (!spec.hyper_connections) return;
  const model::HyperConnections& sizes = *spec.hyper_connections;
  shape_ = {.streams = sizes.streams,
            .iterations = mixes ? sizes.sinkhorn_iterations : 0,
            .eps = sizes.eps};
}

HyperConnection::Read HyperConnection::read(const at::Tensor& streams) const {
  const int64_t tokens = streams.size(0), n = shape_.streams;
  const at::Tensor logits = ops::rms_linear(streams, *weight_, norm_eps_);
  const at::Tensor numbers = ops::hyper_weights(logits, *bias_, *scale_, shape_);
  const at::Tensor rows = streams.view({tokens, n, streams.size(1) / n});
  const at::Tensor weights = numbers.narrow(1, 0, n);
  Read read;
  if (rows.scalar_type() == numbers.scalar_type()) {
    read.x = at::bmm(weights.unsqueeze(1), rows).squeeze(1);
  } else {  // the sum in float32
    read.x = (weights.unsqueeze(2) * rows).sum(1).to(rows.scalar_type());
  }
  if (shape_.iterations == 0) return read;
  const at::Tensor own = numbers.to(rows.scalar_type());
  read.join = own.narrow(1, n, n);
  read.mix = own.narrow(1, 2 * n, n * n).view({tokens, n, n});
  return read;
}

at::Tensor HyperConnection::join(const at::Tensor& streams, const Read& read,
                                 const at::Tensor& y) const {
  const int64_t tokens = streams.size(0);
  const at::Tensor rows = streams.view({tokens, shape_.streams, streams.size(1) / shape_.streams});
  const at::Tensor mixed = at::bmm(read.mix.transpose(1, 2), rows);
  return at::baddbmm(mixed, read.join.unsqueeze(2), y.unsqueeze(1)).view(streams.sizes());
}

at::Tensor repeated_rows(const at::Tensor& x, const model::ModelSpec& spec) {
  if (!spec.hyper_connections) return x;
  return x.repeat({1, spec.hyper_connections->streams});
}

}  // namespace qianli::nn
