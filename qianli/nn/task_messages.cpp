#include "qianli/nn/task_messages.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include <limits>

namespace qianli::nn {
namespace {

// [heads, rows] of each part, in the wide type -> [rows, heads x its words] in the dtype of `like`,
// bit for bit. A part without statistics saw no key.
at::Tensor as_words(const std::vector<at::Tensor>& lse, const data::PlaceParts& parts,
                    const at::Tensor& like) {
  const int64_t heads = like.size(1);
  const auto wide = like.options().dtype(wide_type(like));
  std::vector<at::Tensor> rows;
  over_parts(parts, [&](size_t i, int64_t) {
    rows.push_back(lse[i].defined() ? lse[i].t()
                                    : at::full({parts[i].rows(), heads},
                                               -std::numeric_limits<double>::infinity(), wide));
  });
  return at::cat(rows, 0).contiguous().view(like.scalar_type());
}

// The way back: [rows, heads].
at::Tensor from_words(const at::Tensor& words, at::ScalarType wide) {
  return words.contiguous().view(wide);
}

int64_t words_of_statistics(const at::Tensor& q) {
  return static_cast<int64_t>(c10::elementSize(wide_type(q)) / c10::elementSize(q.scalar_type()));
}

at::Tensor flat(const at::Tensor& x) { return x.reshape({x.size(0), -1}); }

}  // namespace

at::Tensor packed_queries(const at::Tensor& q) { return flat(q).contiguous(); }

at::Tensor packed_result(const PartSums& sums, const data::PlaceParts& parts, const at::Tensor& q,
                         int64_t value_dim) {
  std::vector<at::Tensor> lse;
  for (const auto& sum : sums) lse.push_back(sum.lse);
  return at::cat({flat(output_of(sums, parts, q, value_dim)), as_words(lse, parts, q)}, 1);
}

int64_t result_columns(const at::Tensor& q, int64_t value_dim) {
  return q.size(1) * (value_dim + words_of_statistics(q));
}

void merge_result(PartSums& sums, const at::Tensor& result, const data::PlaceParts& parts,
                  int64_t heads) {
  const at::ScalarType wide = wide_type(result);
  const int64_t words =
      heads * static_cast<int64_t>(c10::elementSize(wide) / c10::elementSize(result.scalar_type()));
  const int64_t columns = result.size(1) - words;
  const at::Tensor out = result.narrow(1, 0, columns).contiguous().unflatten(1, {heads, -1});
  const at::Tensor lse = from_words(result.narrow(1, columns, words), wide);
  over_parts(parts, [&](size_t i, int64_t row) {
    const int64_t rows = parts[i].rows();
    ops::merge(sums[i], {out.narrow(0, row, rows), lse.narrow(0, row, rows).t().contiguous()});
  });
}

at::Tensor packed_finished(const FinishedQueries& queries, bool with_queries) {
  std::vector<at::Tensor> columns;
  if (with_queries) columns.push_back(flat(queries.q));
  columns.push_back(flat(queries.out));
  columns.push_back(flat(queries.grad_out));
  columns.push_back(as_words(queries.lse, queries.parts, queries.q));
  return at::cat(columns, 1);
}

FinishedQueries unpacked_finished(const at::Tensor& packed, const at::Tensor& kept,
                                  const data::PlaceParts& parts, const QueriesKeysValues& own,
                                  at::ScalarType wide) {
  const int64_t heads = own.q.size(1);
  int64_t column = 0;
  const auto next = [&](int64_t width) {
    const at::Tensor columns = packed.narrow(1, column, heads * width).contiguous();
    column += heads * width;
    return columns.unflatten(1, {heads, width});
  };
  const at::Tensor q =
      kept.defined() ? kept.unflatten(1, {heads, own.q.size(2)}) : next(own.q.size(2));
  const at::Tensor out = next(own.v.size(2)), grad_out = next(own.v.size(2));
  const at::Tensor lse = from_words(flat(next(words_of_statistics(own.q))), wide);
  FinishedQueries queries{q, parts, out, grad_out, std::vector<at::Tensor>(parts.size())};
  over_parts(parts, [&](size_t i, int64_t row) {
    queries.lse[i] = lse.narrow(0, row, parts[i].rows()).t().contiguous();
  });
  return queries;
}

}  // namespace qianli::nn
