// What a task schedule's messages carry, one row per token. Columns go head by head.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/nn/place_call.h"

namespace qianli::nn {

// [rows, heads, D], [rows, key heads, D], [rows, key heads, Dv]: of a place's tokens.
struct QueriesKeysValues {
  at::Tensor q, k, v;
};

at::Tensor packed_queries(const at::Tensor& q);

// The attention of visiting queries in q's dtype, each output rounded to it, and its log-sum-exp in
// float32 (float64), as bits.
at::Tensor packed_result(const PartSums& sums, const data::PlaceParts& parts, const at::Tensor& q,
                         int64_t value_dim);
int64_t result_columns(const at::Tensor& q, int64_t value_dim);
// Merges a result that returned for the own queries, whose rows are `parts`.
void merge_result(PartSums& sums, const at::Tensor& result, const data::PlaceParts& parts,
                  int64_t heads);

// Queries with what their backward pass needs; without the queries where the receiver kept them.
at::Tensor packed_finished(const FinishedQueries& queries, bool with_queries);
// kept: the queries as packed_queries laid them out, or undefined. `own` says the sizes; parts must
// outlive the result.
FinishedQueries unpacked_finished(const at::Tensor& packed, const at::Tensor& kept,
                                  const data::PlaceParts& parts, const QueriesKeysValues& own,
                                  at::ScalarType wide);

}  // namespace qianli::nn
