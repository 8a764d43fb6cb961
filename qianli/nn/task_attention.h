// Attention of a place of which the others hold keys and queries, by a task schedule: only what the
// mask leaves open travels, keys to queries or queries to keys (adaptive context parallelism).
#pragma once

#include <ATen/core/Tensor.h>

#include "qianli/nn/place_call.h"

namespace qianli::nn {

// q: [rows, heads, D], k: [rows, key heads, D], v: [rows, key heads, Dv] of this place's tokens;
// returns [rows, heads, Dv].
at::Tensor task_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const c10::intrusive_ptr<PlaceCall>& call);

}  // namespace qianli::nn
