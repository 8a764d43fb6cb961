#include "qianli/nn/recurrent_state.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "qianli/ops/causal_conv1d.h"

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

void RecurrentStates::reset(int64_t slot) {
  if (!defined()) return;
  conv_tails[slot].zero_();
  states[slot].zero_();
}

void RecurrentStates::copy(int64_t from, int64_t to) {
  if (!defined()) return;
  conv_tails[to].copy_(conv_tails[from]);
  states[to].copy_(states[from]);
}

at::Tensor RecurrentStates::convolve(const at::Tensor& x, ops::Parameter& weight,
                                     ops::Parameter* bias,
                                     const std::vector<int64_t>& segment_starts,
                                     const std::vector<int64_t>& slots) {
  std::vector<at::Tensor> parts;
  for (size_t s = 0; s < slots.size(); ++s) {
    const int64_t first = segment_starts[s], count = segment_starts[s + 1] - first;
    at::Tensor tail = conv_tails[slots[s]].clone();
    parts.push_back(
        ops::causal_conv1d_update(x.narrow(0, first, count), weight, bias, tail, /*silu=*/true));
    conv_tails[slots[s]].copy_(tail);
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 0);
}

at::Tensor RecurrentStates::of(const std::vector<int64_t>& slots) const {
  if (slots.size() == 1) return states.narrow(0, slots[0], 1);
  return states.index_select(0, at::tensor(slots, at::kLong).to(states.device()));
}

void RecurrentStates::keep(const std::vector<int64_t>& slots, const at::Tensor& values) {
  states.index_copy_(0, at::tensor(slots, at::kLong).to(states.device()), values);
}

RecurrentStates make_recurrent_states(const model::ModelSpec& spec, int64_t index, int64_t slots,
                                      const at::TensorOptions& options) {
  const Sizes sizes = sizes_of(spec, index);
  if (sizes.heads == 0) return {};
  const at::ScalarType dtype = c10::typeMetaToScalarType(options.dtype());
  return {.conv_tails = at::zeros({slots, sizes.tail, sizes.channels}, options),
          .states = at::zeros({slots, sizes.heads, sizes.rows, sizes.columns},
                              options.dtype(state_type(dtype)))};
}

int64_t recurrent_state_bytes(const model::ModelSpec& spec, int64_t index, at::ScalarType dtype) {
  const Sizes sizes = sizes_of(spec, index);
  return sizes.tail * sizes.channels * static_cast<int64_t>(c10::elementSize(dtype)) +
         sizes.heads * sizes.rows * sizes.columns *
             static_cast<int64_t>(c10::elementSize(state_type(dtype)));
}

}  // namespace qianli::nn
