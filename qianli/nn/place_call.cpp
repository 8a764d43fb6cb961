#include "qianli/nn/place_call.h"

#include <ATen/ops/zeros.h>

namespace qianli::nn {
namespace {

at::Tensor rows_of(const at::Tensor& x, int64_t row, const data::ContextPart& part) {
  return x.narrow(0, row, part.rows());
}

// body(query part, its first row, key part, its first row) for those that see each other.
template <class Body>
void over_pairs(const PlaceCall& call, const data::PlaceParts& queries,
                const data::PlaceParts& keys, const Body& body) {
  over_parts(queries, [&](size_t i, int64_t q_row) {
    over_parts(keys, [&](size_t j, int64_t k_row) {
      if (data::meet(queries[i], keys[j], call.layout.causal, call.layout.window))
        body(i, q_row, j, k_row);
    });
  });
}

}  // namespace

at::Tensor PlaceCall::own_sinks(at::ScalarType dtype) const {
  return sinks->value().narrow(0, sink_range.begin, sink_range.count()).to(dtype);
}

ops::AttentionLayout PlaceCall::between(const data::ContextPart& queries,
                                        const data::ContextPart& keys) const {
  ops::AttentionLayout own = layout;
  own.q_starts = queries.starts;
  own.k_starts = keys.starts;
  own.offsets.clear();
  for (size_t s = 0; s < queries.positions.size(); ++s)
    own.offsets.push_back(queries.positions[s] - keys.positions[s]);
  for (size_t s = 0; s < own.origins.size(); ++s) own.origins[s] += keys.positions[s];
  return own;
}

at::ScalarType wide_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

void merge_attention(PartSums& sums, const at::Tensor& q, const data::PlaceParts& parts,
                     const KeyBlock& keys, const PlaceCall& call) {
  over_pairs(call, parts, keys.parts, [&](size_t i, int64_t q_row, size_t j, int64_t k_row) {
    const auto &queries = parts[i], &part = keys.parts[j];
    ops::merge(sums[i],
               ops::attention_part(rows_of(q, q_row, queries), rows_of(keys.k, k_row, part),
                                   rows_of(keys.v, k_row, part), call.between(queries, part)));
  });
}

at::Tensor output_of(const PartSums& sums, const data::PlaceParts& parts, const at::Tensor& q,
                     int64_t value_dim) {
  at::Tensor out = at::zeros({q.size(0), q.size(1), value_dim}, q.options());
  over_parts(parts, [&](size_t i, int64_t row) {
    if (sums[i].out.defined()) rows_of(out, row, parts[i]).copy_(sums[i].out);
  });
  return out;
}

void add_gradients(const FinishedQueries& finished, const KeyBlock& keys, const PlaceCall& call,
                   const at::Tensor& grad_q, const KeysAndValues& grad_keys) {
  const auto& parts = finished.parts;
  over_pairs(call, parts, keys.parts, [&](size_t i, int64_t q_row, size_t j, int64_t k_row) {
    const auto &queries = parts[i], &part = keys.parts[j];
    const auto found = ops::attention_part_backward(
        rows_of(finished.q, q_row, queries), rows_of(keys.k, k_row, part),
        rows_of(keys.v, k_row, part), call.between(queries, part), finished.whole(i, q_row),
        rows_of(finished.grad_out, q_row, queries));
    rows_of(grad_q, q_row, queries).add_(found.q);
    rows_of(grad_keys.k, k_row, part).add_(found.k);
    rows_of(grad_keys.v, k_row, part).add_(found.v);
  });
}

at::Tensor sink_anchor(const PlaceCall& call) {
  const bool trainable = call.sinks && call.sinks->trainable();
  return trainable ? ops::gradient_anchor() : ops::gradient_anchor().detach();
}

void add_sinks(PartSums& sums, const PlaceCall& call) {
  if (!call.sinks) return;
  for (auto& sum : sums) {
    if (sum.lse.defined()) ops::add_sinks(sum, call.own_sinks(sum.lse.scalar_type()));
  }
}

void add_sink_gradient(const FinishedQueries& queries, const PlaceCall& call) {
  if (!call.sinks || !call.sinks->trainable()) return;
  over_parts(queries.parts, [&](size_t i, int64_t row) {
    const auto part = queries.whole(i, row);
    call.sinks->grad_to_add()
        .narrow(0, call.sink_range.begin, call.sink_range.count())
        .add_(ops::sink_gradient(part, call.own_sinks(part.lse.scalar_type()),
                                 rows_of(queries.grad_out, row, queries.parts[i])));
  });
}

}  // namespace qianli::nn
