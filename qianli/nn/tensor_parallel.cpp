#include "qianli/nn/tensor_parallel.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/zeros.h>
#include <fmt/core.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/base/error.h"
#include "qianli/ops/embedding.h"

namespace qianli::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Shares of rows differ by one at most; collectives want equal ones.
int64_t largest_share(int64_t rows, int64_t ranks) { return (rows + ranks - 1) / ranks; }

at::Tensor padded(const at::Tensor& x, int64_t rows) {
  if (x.size(0) == rows) return x;
  std::vector<int64_t> pads(static_cast<size_t>(2 * x.dim()), 0);
  pads.back() = rows - x.size(0);
  return at::constant_pad_nd(x, pads);
}

at::Tensor gather_rows(const at::Tensor& own, int64_t rows, const dist::Group& group) {
  const int64_t ranks = group.size(), largest = largest_share(rows, ranks);
  const at::Tensor all = group.all_gather(padded(own.contiguous(), largest));
  if (largest * ranks == rows) return all;
  std::vector<at::Tensor> parts;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    parts.push_back(all.narrow(0, rank * largest, plan::Share{rank, ranks}.of(rows).count()));
  }
  return at::cat(parts);
}

at::Tensor sum_and_share_rows(const at::Tensor& whole, const dist::Group& group) {
  const int64_t rows = whole.size(0), ranks = group.size(), largest = largest_share(rows, ranks);
  if (largest * ranks == rows) return group.reduce_scatter(whole.contiguous());
  std::vector<at::Tensor> parts;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const plan::IndexRange share = plan::Share{rank, ranks}.of(rows);
    parts.push_back(padded(whole.narrow(0, share.begin, share.count()), largest));
  }
  const int64_t own = plan::Share{group.rank(), ranks}.of(rows).count();
  return group.reduce_scatter(at::cat(parts)).narrow(0, 0, own);
}

at::Tensor summed(const at::Tensor& part, const dist::Group& group) {
  const at::Tensor sum = part.clone(at::MemoryFormat::Contiguous);
  group.all_reduce(sum);
  return sum;
}

at::Tensor into(const at::Tensor& x, int64_t tokens, const Parallel& parallel) {
  return parallel.sequence ? gather_rows(x, tokens, parallel.tensor) : x;
}

at::Tensor out_of(const at::Tensor& parts, const Parallel& parallel) {
  return parallel.sequence ? sum_and_share_rows(parts, parallel.tensor)
                           : summed(parts, parallel.tensor);
}

const Parallel& parallel_of(AutogradContext* context) {
  return *reinterpret_cast<const Parallel*>(context->saved_data["parallel"].toInt());
}

class EnterBlock : public torch::autograd::Function<EnterBlock> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, int64_t tokens,
                            const Parallel* parallel) {
    context->saved_data["parallel"] = reinterpret_cast<int64_t>(parallel);
    return parallel->sequence ? into(x, tokens, *parallel) : x.view_as(x);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    return {out_of(grads[0], parallel_of(context)), {}, {}};
  }
};

class LeaveBlock : public torch::autograd::Function<LeaveBlock> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& y,
                            const Parallel* parallel) {
    context->saved_data["parallel"] = reinterpret_cast<int64_t>(parallel);
    context->saved_data["tokens"] = y.size(0);
    return out_of(y, *parallel);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    return {into(grads[0], context->saved_data["tokens"].toInt(), parallel_of(context)), {}};
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
  return parallel.tensor.alone() ? x : EnterBlock::apply(x, tokens, &parallel);
}

at::Tensor leave_block(const at::Tensor& y, const Parallel& parallel) {
  return parallel.tensor.alone() ? y : LeaveBlock::apply(y, &parallel);
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
