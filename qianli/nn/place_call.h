// Attention of one place of a context ring: what all algorithms share.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "qianli/data/context_deal.h"
#include "qianli/dist/group.h"
#include "qianli/nn/head_exchange.h"
#include "qianli/nn/visiting_keys.h"
#include "qianli/ops/attention_part.h"

namespace qianli::nn {

// A call of attention, for the heads that this rank computes.
struct PlaceCall : torch::CustomClassHolder {
  // slopes, first_head: of these heads; origins: of whole segments
  ops::AttentionLayout layout;
  ops::Parameter* sinks = nullptr;
  HeadRange sink_range{0, 0};
  std::shared_ptr<const data::ContextDeal> deal;
  dist::Group ring;
  KeysLeft left;

  const data::PlaceParts& parts() const { return deal->parts(ring.rank()); }
  at::Tensor own_sinks(at::ScalarType dtype) const;
  // Of the queries of one part to the keys of another.
  ops::AttentionLayout between(const data::ContextPart& queries,
                               const data::ContextPart& keys) const;
};

// float64 for float64, else float32: of sums.
at::ScalarType wide_type(const at::Tensor& x);

// body(part, first row of it) for the parts that have rows.
template <class Body>
void over_parts(const data::PlaceParts& parts, const Body& body) {
  int64_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].rows() > 0) body(i, row);
    row += parts[i].rows();
  }
}

// The attention of each part of the queries to the keys so far; undefined: to none.
using PartSums = std::vector<ops::AttentionPart>;

// Merges in the attention of the queries q [rows, heads, D], whose rows are `parts`, to these keys.
void merge_attention(PartSums& sums, const at::Tensor& q, const data::PlaceParts& parts,
                     const KeyBlock& keys, const PlaceCall& call);

// [rows, heads, Dv] in q's dtype: the output of all parts, 0 for rows that saw no key.
at::Tensor output_of(const PartSums& sums, const data::PlaceParts& parts, const at::Tensor& q,
                     int64_t value_dim);

// Queries whose attention is finished. Shapes: q [rows, heads, D]; out, grad_out [rows, heads, Dv];
// lse of each part [heads, rows of it].
struct FinishedQueries {
  at::Tensor q;
  const data::PlaceParts& parts;
  at::Tensor out, grad_out;
  std::vector<at::Tensor> lse;

  ops::AttentionPart whole(size_t part, int64_t row) const {
    return {out.narrow(0, row, parts[part].rows()), lse[part]};
  }
};

// Adds the gradients by way of these keys; grad_q, grad_keys: in wide_type.
void add_gradients(const FinishedQueries& queries, const KeyBlock& keys, const PlaceCall& call,
                   const at::Tensor& grad_q, const KeysAndValues& grad_keys);

// An input without which autograd would not call the backward pass for trainable sinks alone.
at::Tensor sink_anchor(const PlaceCall& call);
// Of this place's queries: merges the sinks in, and adds the gradient of trainable ones.
void add_sinks(PartSums& sums, const PlaceCall& call);
void add_sink_gradient(const FinishedQueries& queries, const PlaceCall& call);

}  // namespace qianli::nn
