#include "qianli/nn/context_attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/nn/dropout.h"
#include "qianli/nn/head_exchange.h"
#include "qianli/nn/slice_keys.h"
#include "qianli/nn/visiting_keys.h"
#include "qianli/ops/attention_part.h"

namespace qianli::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Attention of a place's queries, for the heads that this rank computes.
struct PlaceCall : torch::CustomClassHolder {
  // slopes, first_head: of these heads; origins: of whole segments
  ops::AttentionLayout layout;
  ops::Parameter* sinks = nullptr;
  HeadRange sink_range{0, 0};
  std::shared_ptr<const data::ContextDeal> deal;
  dist::Group ring;
  KeysLeft left;

  const std::vector<data::ContextPart>& parts() const { return deal->parts(ring.rank()); }
  at::Tensor own_sinks(at::ScalarType dtype) const {
    return sinks->value().narrow(0, sink_range.begin, sink_range.count()).to(dtype);
  }
  // Of the queries of one part to the keys of another.
  ops::AttentionLayout between(const data::ContextPart& queries,
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
};

// body(part, first row of it) for the parts that have rows.
template <class Body>
void over_parts(const std::vector<data::ContextPart>& parts, const Body& body) {
  int64_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].rows() > 0) body(i, row);
    row += parts[i].rows();
  }
}

// body(query part, its first row, key part, its first row) for those that see each other.
template <class Body>
void over_pairs(const PlaceCall& call, const std::vector<data::ContextPart>& keys,
                const Body& body) {
  over_parts(call.parts(), [&](size_t i, int64_t q_row) {
    over_parts(keys, [&](size_t j, int64_t k_row) {
      if (data::meet(call.parts()[i], keys[j], call.layout.causal, call.layout.window))
        body(i, q_row, j, k_row);
    });
  });
}

at::ScalarType wide_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

class PlaceAttention : public torch::autograd::Function<PlaceAttention> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor&,
                            const c10::intrusive_ptr<PlaceCall>& call) {
    const auto sums = attend_to_all(q, k, v, *call);
    at::Tensor out = at::zeros({q.size(0), q.size(1), v.size(2)}, q.options());
    variable_list saved = {q, k, v, out};
    over_parts(call->parts(), [&](size_t i, int64_t row) {
      out.narrow(0, row, call->parts()[i].rows()).copy_(sums[i].out);
    });
    for (const auto& sum : sums) saved.push_back(sum.lse);
    context->save_for_backward(saved);
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto call =
        c10::static_intrusive_pointer_cast<PlaceCall>(context->saved_data["call"].toCapsule());
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const at::Tensor grad_out = grads[0].contiguous();
    // The finished attention of a part, and the gradient of its output.
    const auto whole = [&](size_t i, int64_t row) {
      return ops::AttentionPart{saved[3].narrow(0, row, call->parts()[i].rows()), saved[4 + i]};
    };
    const auto rows_of = [](const at::Tensor& x, int64_t row, const data::ContextPart& part) {
      return x.narrow(0, row, part.rows());
    };
    const at::Tensor grad_q = at::zeros(q.sizes(), q.options().dtype(wide_type(q)));
    const auto visitors = visiting_keys(k, v, *call->deal, call->ring, Pass::kBackward, call->left);
    for (int64_t visit = 0; visit < visitors->visits(); ++visit) {
      const KeyBlock keys = visitors->visit(visit);
      const at::Tensor gradient =
          at::zeros({keys.k.size(0), k.size(1) * (k.size(2) + v.size(2))}, grad_q.options());
      const KeysAndValues grad_keys = unpacked_keys(gradient, k.size(1), k.size(2));
      over_pairs(*call, keys.parts, [&](size_t i, int64_t q_row, size_t j, int64_t k_row) {
        const auto &queries = call->parts()[i], &part = keys.parts[j];
        const auto found = ops::attention_part_backward(
            rows_of(q, q_row, queries), rows_of(keys.k, k_row, part), rows_of(keys.v, k_row, part),
            call->between(queries, part), whole(i, q_row), rows_of(grad_out, q_row, queries));
        rows_of(grad_q, q_row, queries).add_(found.q);
        rows_of(grad_keys.k, k_row, part).add_(found.k);
        rows_of(grad_keys.v, k_row, part).add_(found.v);
      });
      visitors->give(visit, gradient);
    }
    if (call->sinks && call->sinks->trainable()) {
      over_parts(call->parts(), [&](size_t i, int64_t row) {
        const auto part = whole(i, row);
        call->sinks->grad_to_add()
            .narrow(0, call->sink_range.begin, call->sink_range.count())
            .add_(ops::sink_gradient(part, call->own_sinks(part.lse.scalar_type()),
                                     rows_of(grad_out, row, call->parts()[i])));
      });
    }
    const KeysAndValues own =
        unpacked_keys(visitors->finish().to(k.scalar_type()), k.size(1), k.size(2));
    return {grad_q.to(q.scalar_type()), own.k, own.v, {}, {}};
  }

 private:
  // Of each part of the queries.
  static std::vector<ops::AttentionPart> attend_to_all(const at::Tensor& q, const at::Tensor& k,
                                                       const at::Tensor& v, PlaceCall& call) {
    std::vector<ops::AttentionPart> sums(call.parts().size());
    const auto visitors = visiting_keys(k, v, *call.deal, call.ring, Pass::kForward, call.left);
    for (int64_t visit = 0; visit < visitors->visits(); ++visit) {
      const KeyBlock keys = visitors->visit(visit);
      over_pairs(call, keys.parts, [&](size_t i, int64_t q_row, size_t j, int64_t k_row) {
        const auto &queries = call.parts()[i], &part = keys.parts[j];
        ops::merge(sums[i], ops::attention_part(q.narrow(0, q_row, queries.rows()),
                                                keys.k.narrow(0, k_row, part.rows()),
                                                keys.v.narrow(0, k_row, part.rows()),
                                                call.between(queries, part)));
      });
    }
    visitors->finish();
    for (auto& sum : sums) {
      if (call.sinks && sum.lse.defined())
        ops::add_sinks(sum, call.own_sinks(sum.lse.scalar_type()));
    }
    return sums;
  }
};

at::Tensor place_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const c10::intrusive_ptr<PlaceCall>& call) {
  const bool trainable = call->sinks && call->sinks->trainable();
  const at::Tensor anchor = trainable ? ops::gradient_anchor() : ops::gradient_anchor().detach();
  return PlaceAttention::apply(q, k, v, anchor, call);
}

// Key heads so that query head h of these reads head h / (heads / key heads) of the result: as they
// are where their groups are whole, else one for each query head.
at::Tensor matching_heads(const at::Tensor& keys, HeadRange queries, HeadRange key_range,
                          int64_t group) {
  bool matching = queries.count() % key_range.count() == 0;
  std::vector<int64_t> heads;
  for (int64_t h = queries.begin; h < queries.end; ++h) {
    heads.push_back(h / group - key_range.begin);
    matching = matching &&
               heads.back() ==
                   (h - queries.begin) / std::max<int64_t>(queries.count() / key_range.count(), 1);
  }
  if (matching) return keys;
  return keys.index_select(1, at::tensor(heads, at::kLong).to(keys.device()));
}

}  // namespace

at::Tensor context_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const ops::AttentionLayout& layout, ops::Parameter* sinks,
                             const std::shared_ptr<const data::ContextDeal>& deal,
                             const dist::Group& heads, const dist::Group& ring) {
  TORCH_CHECK(
      !layout.chosen.defined(),
      "[context] expected attention to all keys, got chosen ones (an indexer): they are not "
      "offered where ranks share a sequence");
  auto call = c10::make_intrusive<PlaceCall>();
  call->deal = deal;
  // Without a backward pass nothing needs to stay.
  if (at::GradMode::is_enabled()) call->left.what = deal->options().kept;
  call->layout = layout;
  call->sinks = sinks;
  call->ring = ring;
  const int64_t query_heads = q.size(1);
  call->sink_range = {0, query_heads};
  if (heads.alone()) return place_attention(q, k, v, call);

  const HeadRanges queries = query_ranges(query_heads, heads.size());
  const HeadRanges keys = key_ranges(query_heads, k.size(1), heads.size());
  const auto starts = data::even_starts(deal->rows(ring.rank()), heads.size());
  std::vector<int64_t> rows;
  for (size_t r = 0; r + 1 < starts.size(); ++r) rows.push_back(starts[r + 1] - starts[r]);
  const auto whole = to_heads({q, k, v}, {queries, keys, keys}, rows, heads);
  const auto own = static_cast<size_t>(heads.rank());
  const int64_t group = query_heads / k.size(1);
  call->sink_range = queries[own];
  call->layout.first_head += queries[own].begin;
  if (layout.slopes.defined())
    call->layout.slopes = layout.slopes.narrow(0, queries[own].begin, queries[own].count());
  const at::Tensor own_k = matching_heads(whole[1], queries[own], keys[own], group),
                   own_v = matching_heads(whole[2], queries[own], keys[own], group);
  if (!ring.alone() || sinks)
    return to_rows(place_attention(whole[0], own_k, own_v, call), queries, rows, heads);
  call->layout.q_starts = call->layout.k_starts = deal->segment_starts();
  return to_rows(ops::attention(whole[0], own_k, own_v, call->layout), queries, rows, heads);
}

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  ops::AttentionLayout layout, ops::Parameter* sinks, int64_t layer,
                  const ForwardPass& pass) {
  drop_attention(layout, layer, q.size(1), pass);
  if (const auto& slice = pass.input.slice) {
    const KeysAndValues all = pass.input.slice_keys->with_earlier(layer, k, v, *slice);
    layout.k_starts = slice->segment_starts;
    layout.offsets = slice->positions;
    return ops::attention(q, all.k, all.v, layout, sinks);
  }
  if (!pass.input.context) return ops::attention(q, k, v, layout, sinks);
  return context_attention(q, k, v, layout, sinks, pass.input.context, pass.parallel.context_heads,
                           pass.parallel.context_ring);
}

}  // namespace qianli::nn
