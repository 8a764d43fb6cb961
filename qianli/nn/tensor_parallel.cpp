#include "qianli/nn/tensor_parallel.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/ops/embedding.h"

namespace qianli::nn {
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

Side stream_side(int64_t tokens, const Parallel& parallel) {
  const dist::Group& group = parallel.tensor;
  if (group.alone()) return {};
  if (!parallel.sequence) return {.group = &group};
  return {.group = &group, .rows = SharedRows::even(tokens, group)};
}

at::Tensor enter_block(const at::Tensor& x, int64_t tokens, const Parallel& parallel) {
  return stream_side(tokens, parallel).enter(x);
}

at::Tensor leave_block(const at::Tensor& y, const Parallel& parallel) {
  return stream_side(y.size(0), parallel).leave(y);
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
