// How the ranks of Parallel::tensor hold the tokens (Megatron-LM, Shoeybi et al. 2019; sequence
// parallelism, Korthikanti et al. 2022; two-dimensional, MindSpeed's tp-2d), T tokens of h columns:
//
//                     between blocks      within a block
//   one-dimensional   [T, h]              [T, width / ranks]
//   with sequence     [T / ranks, h]      [T, width / ranks]
//   two-dimensional   [T / x, h / y]      [T / y, width / x]
//
// Around the layers, of the embedding and the output layer, every rank has rows of the vocabulary
// and all tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/nn/forward_pass.h"
#include "qianli/ops/cross_entropy.h"
#include "qianli/ops/parameter.h"
#include "qianli/plan/model_part.h"

namespace qianli::nn {

plan::Share tensor_share(const Parallel& parallel);  // of the vocabulary
plan::Share head_share(const Parallel& parallel);    // of heads and MLP widths

// Fills in the pass's stream of `columns`, inner, positions and first column.
void share_tokens(ForwardPass& pass, int64_t columns);

// The rows of the stream that this rank has, of `tokens`; values per token: [T, …] -> those rows.
plan::IndexRange stream_rows(int64_t tokens, const Parallel& parallel);
at::Tensor on_stream(const at::Tensor& per_token, const Parallel& parallel);

// All of the stream, [T, h], from what this rank has of it, and from the parts of a sum what it
// has. Backward each is the other. `parallel` must outlive the graph.
at::Tensor off_stream(const at::Tensor& x, int64_t tokens, int64_t columns,
                      const Parallel& parallel);
at::Tensor onto_stream(const at::Tensor& parts, const Parallel& parallel);

// Rows of a table of `vocabulary` rows, of which this rank has its share: [T] -> the stream.
at::Tensor embed_tokens(const at::Tensor& tokens, ops::Parameter& table, int64_t vocabulary,
                        const Parallel& parallel);

// The output layer of a rank that has its share of the vocabulary.
void share_vocabulary(ops::OutputLayer& layer, int64_t vocabulary, const Parallel& parallel);

}  // namespace qianli::nn
