// Dropout and noise in training. Dropout: of the embedding, of what attention and feed-forward
// blocks add to the stream, and of the attention's probabilities. What is dropped depends on the
// training's seed, the step, the place in the model, and the token's and channel's (or query's,
// key's and head's) place in the whole (ops/dropout.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "qianli/model/spec.h"
#include "qianli/nn/forward_pass.h"
#include "qianli/ops/attention.h"

namespace qianli::nn {

// x: rows of the stream, [T of this rank, h]. `site` names the place in the model; no other one has
// it. Returned as they are where nothing is dropped.
at::Tensor drop_embedding(const at::Tensor& x, const std::string& site, const ForwardPass& pass);
at::Tensor drop_hidden(const at::Tensor& x, const std::string& site, const ForwardPass& pass);

// x + noise, of NEFTune (arXiv:2310.05914): uniform in +-alpha / sqrt(L h) for a token of a sample
// of L tokens, times the embedding's multiplier. x as it is where none is asked for.
at::Tensor noisy_embedding(const at::Tensor& x, const model::ModelSpec& spec,
                           const ForwardPass& pass);

// For attention of layer `layer`, of which every rank of the tensor group has `heads` heads.
void drop_attention(ops::AttentionLayout& layout, int64_t layer, int64_t heads,
                    const ForwardPass& pass);

}  // namespace qianli::nn
