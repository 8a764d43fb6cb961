// What the ranks of Parallel::tensor exchange around the blocks that they compute together
// (Megatron-LM, Shoeybi et al. 2019; sequence parallelism, Korthikanti et al. 2022). Within a block
// every rank has all tokens and computes with its part of the parameters; its output is a part of a
// sum. Between blocks every rank has the same stream, or with sequence parallelism the rows of it
// that are its share.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/nn/parallel.h"
#include "qianli/nn/shared_linear.h"
#include "qianli/ops/cross_entropy.h"
#include "qianli/ops/parameter.h"
#include "qianli/plan/model_part.h"

namespace qianli::nn {

plan::Share tensor_share(const Parallel& parallel);

// How the ranks hold the stream of `tokens`.
Side stream_side(int64_t tokens, const Parallel& parallel);

// The rows of the stream that this rank has, of `tokens`; values per token: [T, …] -> those rows.
plan::IndexRange stream_rows(int64_t tokens, const Parallel& parallel);
at::Tensor on_stream(const at::Tensor& per_token, const Parallel& parallel);

// From the stream into a block of `tokens`, and the parts of a sum out of a block into the stream.
// Backward each is the other. `parallel` must outlive the graph.
at::Tensor enter_block(const at::Tensor& x, int64_t tokens, const Parallel& parallel);
at::Tensor leave_block(const at::Tensor& y, const Parallel& parallel);

// Rows of a table of `vocabulary` rows, of which this rank has its share: [T] -> the stream.
at::Tensor embed_tokens(const at::Tensor& tokens, ops::Parameter& table, int64_t vocabulary,
                        const Parallel& parallel);

// The output layer of a rank that has its share of the vocabulary.
void share_vocabulary(ops::OutputLayer& layer, int64_t vocabulary, const Parallel& parallel);

}  // namespace qianli::nn
