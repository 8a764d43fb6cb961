#include "qianli/nn/tensor_parallel.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/ops/embedding.h"

namespace qianli::nn {
namespace {

// Between the blocks.
Side stream_side(int64_t tokens, const Parallel& parallel) {
  const bool two = parallel.two_dimensional();
  const dist::Group& group = two ? parallel.tensor_x : parallel.tensor;
  if (group.alone()) return {};
  Side side{.group = &group};
  if (two || parallel.sequence) side.rows = SharedRows::even(tokens, group);
  return side;
}

}  // namespace

plan::Share tensor_share(const Parallel& parallel) {
  return {parallel.tensor.rank(), parallel.tensor.size()};
}

plan::Share head_share(const Parallel& parallel) {
  const dist::Group& group = parallel.two_dimensional() ? parallel.tensor_x : parallel.tensor;
  return {group.rank(), group.size()};
}

plan::IndexRange stream_rows(int64_t tokens, const Parallel& parallel) {
  const bool shared = parallel.sequence || parallel.two_dimensional();
  return shared ? head_share(parallel).of(tokens) : plan::IndexRange{0, tokens};
}

at::Tensor on_stream(const at::Tensor& per_token, const Parallel& parallel) {
  const plan::IndexRange rows = stream_rows(per_token.size(0), parallel);
  return per_token.narrow(0, rows.begin, rows.count());
}

void share_tokens(ForwardPass& pass, int64_t columns) {
  const Parallel& parallel = pass.parallel;
  pass.stream = stream_side(pass.tokens(), parallel);
  pass.positions = pass.input.positions;
  if (!parallel.two_dimensional()) return;
  // Attention shares the sequences over these ranks, too: each has the tokens of its place there.
  const int64_t size = parallel.tensor_y.size(), first = parallel.context.rank() * size;
  std::vector<int64_t> counts;
  int64_t before = 0;
  for (int64_t j = 0; j < size; ++j) {
    counts.push_back(pass.input.context->rows_of(first + j));
    if (j < parallel.tensor_y.rank()) before += counts.back();
  }
  const int64_t own = counts[static_cast<size_t>(parallel.tensor_y.rank())];
  pass.first_column = plan::Share{parallel.tensor_y.rank(), size}.of(columns).begin;
  pass.positions = pass.input.positions.narrow(0, before, own);
  pass.inner = {.group = &parallel.tensor_y,
                .rows = SharedRows::of_counts(std::move(counts), parallel.tensor_y)};
}

at::Tensor off_stream(const at::Tensor& x, int64_t tokens, int64_t columns,
                      const Parallel& parallel) {
  const at::Tensor rows = stream_side(tokens, parallel).enter(x);
  if (!parallel.two_dimensional()) return rows;
  return SharedRows::even(columns, parallel.tensor_y).gather(rows.t()).t().contiguous();
}

at::Tensor onto_stream(const at::Tensor& parts, const Parallel& parallel) {
  const Side stream = stream_side(parts.size(0), parallel);
  if (!parallel.two_dimensional()) return stream.leave(parts);
  return stream.leave(SharedRows::even(parts.size(1), parallel.tensor_y).sum(parts.t()).t());
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
  return onto_stream(found * own.unsqueeze(1).to(found.scalar_type()), parallel);
}

void share_vocabulary(ops::OutputLayer& layer, int64_t vocabulary, const Parallel& parallel) {
  if (parallel.tensor.alone()) return;
  layer.sharers = &parallel.tensor;
  layer.vocabulary = vocabulary;
  layer.first_row = tensor_share(parallel).of(vocabulary).begin;
}

}  // namespace qianli::nn
