#include "qianli/nn/tensor_parallel.h"

#include <fmt/core.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/base/error.h"
#include "qianli/nn/shared_rows.h"
#include "qianli/ops/embedding.h"

namespace qianli::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor summed(const at::Tensor& part, const dist::Group& group) {
  const at::Tensor sum = part.clone(at::MemoryFormat::Contiguous);
  group.all_reduce(sum);
  return sum;
}

const Parallel& parallel_of(AutogradContext* context) {
  return *reinterpret_cast<const Parallel*>(context->saved_data["parallel"].toInt());
}

// Without sequence parallelism the stream is the same everywhere.
class EnterBlock : public torch::autograd::Function<EnterBlock> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const Parallel* parallel) {
    context->saved_data["parallel"] = reinterpret_cast<int64_t>(parallel);
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    return {summed(grads[0], parallel_of(context).tensor), {}};
  }
};

class LeaveBlock : public torch::autograd::Function<LeaveBlock> {
 public:
  static at::Tensor forward(AutogradContext*, const at::Tensor& y, const Parallel* parallel) {
    return summed(y, parallel->tensor);
  }
  static variable_list backward(AutogradContext*, const variable_list& grads) {
    return {grads[0], {}};
  }
};

}  // namespace

plan::Share tensor_share(const Parallel& parallel) {
  return {parallel.tensor.rank(), parallel.tensor.size()};
}

plan::IndexRange stream_rows(int64_t tokens, const Parallel& parallel) {
  return parallel.sequence ? tensor_share(parallel).of(tokens) : plan::IndexRange{0, tokens};
}

at::Tensor on_stream(const at::Tensor& per_token, const Parallel& parallel) {
  const plan::IndexRange rows = stream_rows(per_token.size(0), parallel);
  return per_token.narrow(0, rows.begin, rows.count());
}

at::Tensor enter_block(const at::Tensor& x, int64_t tokens, const Parallel& parallel) {
  if (parallel.tensor.alone()) return x;
  if (parallel.sequence) return SharedRows::even(tokens, parallel.tensor).gather(x);
  return EnterBlock::apply(x, &parallel);
}

at::Tensor leave_block(const at::Tensor& y, const Parallel& parallel) {
  if (parallel.tensor.alone()) return y;
  if (parallel.sequence) return SharedRows::even(y.size(0), parallel.tensor).sum(y);
  return LeaveBlock::apply(y, &parallel);
}

at::Tensor embed_tokens(const at::Tensor& tokens, ops::Parameter& table, int64_t vocabulary,
                        const Parallel& parallel) {
  if (parallel.tensor.alone()) return ops::embedding(tokens, table);
  if (tokens.is_cpu() && tokens.numel() > 0) {
    const int64_t last = tokens.max().item<int64_t>();
    if (last >= vocabulary || tokens.min().item<int64_t>() < 0) {
      throw DataError(
          "embedding",
          fmt::format("expected token ids below the vocabulary size {}, got {}", vocabulary, last),
          "the data was made with another tokenizer than the model's");
    }
  }
  const plan::IndexRange rows = tensor_share(parallel).of(vocabulary);
  const at::Tensor own = (tokens >= rows.begin).logical_and(tokens < rows.end);
  const at::Tensor ids = (tokens - rows.begin) * own;
  const at::Tensor found = ops::embedding(ids, table);
  return leave_block(found * own.unsqueeze(1).to(found.scalar_type()), parallel);
}

void share_vocabulary(ops::OutputLayer& layer, int64_t vocabulary, const Parallel& parallel) {
  if (parallel.tensor.alone()) return;
  layer.sharers = &parallel.tensor;
  layer.vocabulary = vocabulary;
  layer.first_row = tensor_share(parallel).of(vocabulary).begin;
}

}  // namespace qianli::nn
