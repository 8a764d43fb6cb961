#include "qianli/nn/key_compressor.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <limits>

#include "qianli/ops/norm.h"
#include "qianli/ops/reference_function.h"
#include "qianli/ops/rotary.h"

namespace qianli::nn {
namespace {

// [W, ratio, 2 d] -> [W, 2 ratio, d]: the first half of the window before, then the second half of
// its own. Windows that none precedes have `nothing` there.
at::Tensor overlapped(const at::Tensor& rows, const at::Tensor& first, double nothing) {
  const int64_t size = rows.size(2) / 2;
  const at::Tensor early = rows.narrow(2, 0, size);
  const at::Tensor before =
      at::cat({at::zeros_like(early.narrow(0, 0, 1)), early.narrow(0, 0, rows.size(0) - 1)});
  return at::cat({before.masked_fill(first.view({-1, 1, 1}), nothing), rows.narrow(2, size, size)},
                 1);
}

at::Tensor weighted_means(const at::Tensor& kv, const at::Tensor& gate, const at::Tensor& bias,
                          const at::Tensor& first, bool overlaps) {
  const int64_t ratio = bias.size(0), windows = kv.size(0) / ratio;
  at::Tensor values = kv.view({windows, ratio, -1});
  at::Tensor logits = gate.view({windows, ratio, -1}) + bias.to(gate.scalar_type());
  if (overlaps) {
    values = overlapped(values, first, 0.0);
    logits = overlapped(logits, first, -std::numeric_limits<double>::infinity());
  }
  const bool widest = kv.scalar_type() == at::kDouble;
  const at::Tensor weights = at::softmax(logits, 1, widest ? at::kDouble : at::kFloat);
  return (values * weights.to(values.scalar_type())).sum(1);
}

}  // namespace

KeyCompressor::KeyCompressor(const model::ModelSpec& spec, const model::LayerSpec& layer,
                             ParameterSet& parameters, const std::string& prefix, int64_t size)
    : spec_(spec),
      rope_(layer.rope),
      ratio_(layer.compression),
      size_(size),
      overlaps_(layer.mixer == model::MixerKind::kSparseCompressed),
      kv_(find_linear(parameters, prefix + "linear_kv")),
      gate_(find_linear(parameters, prefix + "linear_gate")),
      position_bias_(&parameters.at(prefix + "position_bias")),
      norm_(&parameters.at(prefix + "norm.weight")) {}

CompressedKeys KeyCompressor::operator()(const at::Tensor& x, ForwardPass& pass,
                                         const std::vector<CompressorState*>& states) const {
  const at::Tensor kv = kv_(x), gate = gate_(x);
  if (states.empty()) return of_segments(kv, gate, pass);
  const auto& segments = pass.input.segment_starts;
  CompressedKeys all{.keys = {}, .starts = {0}};
  std::vector<at::Tensor> keys;
  for (size_t s = 0; s < states.size(); ++s) {
    const int64_t first = segments[s], count = segments[s + 1] - first;
    keys.push_back(
        continued(kv.narrow(0, first, count), gate.narrow(0, first, count), pass, *states[s]));
    all.starts.push_back(all.starts.back() + keys.back().size(0));
  }
  all.keys = keys.size() == 1 ? keys[0] : at::cat(keys);
  return all;
}

at::Tensor KeyCompressor::means(const at::Tensor& kv, const at::Tensor& gate,
                                const at::Tensor& first) const {
  const auto formula = [first, overlaps = overlaps_](const ops::Tensors& inputs,
                                                     const ops::Tensors& weights) {
    return ops::Tensors{weighted_means(inputs[0], inputs[1], weights[0], first, overlaps)};
  };
  const at::Tensor means = ops::apply_reference(formula, {kv, gate}, {position_bias_})[0];
  return ops::rms_norm(means, *norm_, spec_.norm_eps);
}

at::Tensor KeyCompressor::rotate(const at::Tensor& keys, const at::Tensor& positions,
                                 ForwardPass& pass) const {
  const ops::RotaryTable& table = pass.rotary.at(*rope_, pass.input);
  return ops::rotary(
             keys.unsqueeze(1), table, positions,
             {.interleaved = rope_->interleaved, .offset = size_ - spec_.rotary_size(*rope_)})
      .squeeze(1);
}

CompressedKeys KeyCompressor::of_segments(const at::Tensor& kv, const at::Tensor& gate,
                                          ForwardPass& pass) const {
  const auto& segments = pass.input.segment_starts;
  CompressedKeys made{.keys = {}, .starts = {0}};
  std::vector<int64_t> tokens;  // the first of each window
  for (size_t s = 0; s + 1 < segments.size(); ++s) {
    for (int64_t t = segments[s]; t + ratio_ <= segments[s + 1]; t += ratio_) tokens.push_back(t);
    made.starts.push_back(static_cast<int64_t>(tokens.size()));
  }
  const int64_t windows = made.starts.back();
  if (windows == 0) {
    made.keys = kv.narrow(0, 0, 0).narrow(1, 0, size_);
    return made;
  }
  const at::Tensor begin = at::tensor(tokens, at::kLong).to(kv.device());
  at::Tensor first = at::zeros({windows}, begin.options().dtype(at::kBool));
  for (size_t s = 0; s + 1 < made.starts.size(); ++s) {
    if (made.starts[s] < made.starts[s + 1]) first.narrow(0, made.starts[s], 1).fill_(true);
  }
  // Where all windows follow each other nothing is picked out.
  const bool in_a_row = tokens.back() == (windows - 1) * ratio_;
  const at::Tensor rows =
      (begin.unsqueeze(1) + at::arange(ratio_, begin.options()).unsqueeze(0)).flatten();
  const auto picked = [&](const at::Tensor& of) {
    return in_a_row ? of.narrow(0, 0, windows * ratio_) : of.index_select(0, rows);
  };
  made.keys = rotate(means(picked(kv), picked(gate), first),
                     pass.input.positions.index_select(0, begin), pass);
  return made;
}

at::Tensor KeyCompressor::continued(const at::Tensor& kv, const at::Tensor& gate, ForwardPass& pass,
                                    CompressorState& state) const {
  const int64_t known = overlaps_ && state.count > 0 ? 1 : 0;  // windows whose keys are there
  state.kv = at::cat({state.kv, kv});
  state.gate = at::cat({state.gate, gate});
  const int64_t windows = state.kv.size(0) / ratio_, fresh = windows - known;
  if (fresh > 0) {
    at::Tensor first = at::zeros({windows}, kv.options().dtype(at::kBool));
    if (known == 0) first.narrow(0, 0, 1).fill_(true);
    const at::Tensor all = means(state.kv.narrow(0, 0, windows * ratio_),
                                 state.gate.narrow(0, 0, windows * ratio_), first);
    const at::Tensor positions =
        (at::arange(fresh, pass.input.positions.options()) + state.count) * ratio_;
    state.append(rotate(all.narrow(0, known, fresh), positions, pass));
    const int64_t done = (overlaps_ ? windows - 1 : windows) * ratio_;
    state.kv = state.kv.narrow(0, done, state.kv.size(0) - done).clone();
    state.gate = state.gate.narrow(0, done, state.gate.size(0) - done).clone();
  }
  return state.keys.narrow(0, 0, state.count);
}

}  // namespace qianli::nn
