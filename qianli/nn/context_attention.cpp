#include "qianli/nn/context_attention.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/nn/dropout.h"
#include "qianli/nn/head_exchange.h"
#include "qianli/nn/place_call.h"
#include "qianli/nn/slice_keys.h"
#include "qianli/nn/task_attention.h"

namespace qianli::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// All keys come by one after the other, or at once.
class RingAttention : public torch::autograd::Function<RingAttention> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor&,
                            const c10::intrusive_ptr<PlaceCall>& call) {
    PartSums sums = attend_to_all(q, k, v, *call);
    add_sinks(sums, *call);
    const at::Tensor out = output_of(sums, call->parts(), q, v.size(2));
    variable_list saved = {q, k, v, out};
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
    const FinishedQueries queries{
        q, call->parts(), saved[3], grads[0].contiguous(), {saved.begin() + 4, saved.end()}};
    const at::Tensor grad_q = at::zeros(q.sizes(), q.options().dtype(wide_type(q)));
    const auto visitors = visiting_keys(k, v, *call->deal, call->ring, Pass::kBackward, call->left);
    for (int64_t visit = 0; visit < visitors->visits(); ++visit) {
      const KeyBlock keys = visitors->visit(visit);
      const at::Tensor gradient =
          at::zeros({keys.k.size(0), k.size(1) * (k.size(2) + v.size(2))}, grad_q.options());
      add_gradients(queries, keys, *call, grad_q, unpacked_keys(gradient, k.size(1), k.size(2)));
      visitors->give(visit, gradient);
    }
    add_sink_gradient(queries, *call);
    const KeysAndValues own =
        unpacked_keys(visitors->finish().to(k.scalar_type()), k.size(1), k.size(2));
    return {grad_q.to(q.scalar_type()), own.k, own.v, {}, {}};
  }

 private:
  static PartSums attend_to_all(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                PlaceCall& call) {
    PartSums sums(call.parts().size());
    const auto visitors = visiting_keys(k, v, *call.deal, call.ring, Pass::kForward, call.left);
    for (int64_t visit = 0; visit < visitors->visits(); ++visit)
      merge_attention(sums, q, call.parts(), visitors->visit(visit), call);
    visitors->finish();
    return sums;
  }
};

at::Tensor place_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const c10::intrusive_ptr<PlaceCall>& call) {
  if (call->deal->options().algorithm == data::ContextAlgorithm::kAdaptive)
    return task_attention(q, k, v, call);
  return RingAttention::apply(q, k, v, sink_anchor(*call), call);
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
                             data::KeptKeys kept, const dist::Group& heads,
                             const dist::Group& ring) {
  TORCH_CHECK(
      !layout.chosen.defined(),
      "[context] expected attention to all keys, got chosen ones (an indexer): they are not "
      "offered where ranks share a sequence");
  auto call = c10::make_intrusive<PlaceCall>();
  call->deal = deal;
  // Without a backward pass nothing needs to stay.
  if (at::GradMode::is_enabled()) call->left.what = kept;
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
  return context_attention(q, k, v, layout, sinks, pass.input.context,
                           pass.input.context->options().kept_of(layer),
                           pass.parallel.context_heads, pass.parallel.context_ring);
}

}  // namespace qianli::nn
