#include "qianli/nn/recurrent_state.h"

#include <ATen/ops/zeros.h>

namespace qianli::nn {
namespace {

struct Sizes {
  int64_t tail = 0, channels = 0, heads = 0, rows = 0, columns = 0;
};

Sizes sizes_of(const model::ModelSpec& spec, int64_t index) {
  const model::MixerKind mixer = spec.layer(index).mixer;
  if (mixer == model::MixerKind::kGatedDeltaNet) {
    const model::GatedDeltaNet& net = *spec.gated_delta_net;
    return {net.conv_kernel - 1, 2 * net.key_size() + net.value_size(), net.num_value_heads,
            net.key_head_dim, net.value_head_dim};
  }
  if (mixer == model::MixerKind::kMamba2) {
    const model::Mamba2& mamba = *spec.mamba2;
    return {mamba.conv_kernel - 1, mamba.inner_size + 2 * mamba.num_groups * mamba.state_size,
            mamba.num_heads(), mamba.state_size, mamba.head_dim};
  }
  return {};
}

at::ScalarType state_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace

void RecurrentState::reset() {
  if (!defined()) return;
  conv_tail.zero_();
  state.zero_();
}

RecurrentState make_recurrent_state(const model::ModelSpec& spec, int64_t index,
                                    const at::TensorOptions& options) {
  const Sizes sizes = sizes_of(spec, index);
  if (sizes.heads == 0) return {};
  const at::ScalarType dtype = c10::typeMetaToScalarType(options.dtype());
  return {.conv_tail = at::zeros({sizes.tail, sizes.channels}, options),
          .state = at::zeros({1, sizes.heads, sizes.rows, sizes.columns},
                             options.dtype(state_type(dtype)))};
}

int64_t recurrent_state_bytes(const model::ModelSpec& spec, int64_t index, at::ScalarType dtype) {
  const Sizes sizes = sizes_of(spec, index);
  return sizes.tail * sizes.channels * static_cast<int64_t>(c10::elementSize(dtype)) +
         sizes.heads * sizes.rows * sizes.columns *
             static_cast<int64_t>(c10::elementSize(state_type(dtype)));
}

}  // namespace qianli::nn
