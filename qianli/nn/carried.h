// What the layers of one part of a decoder leave for the part behind it: all that travels between
// the stages of a pipeline. Shapes: T tokens, h hidden size, g groups, d head size.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "qianli/model/spec.h"
#include "qianli/nn/layers.h"

namespace qianli::nn {

// The residual stream and the branch that is not yet added to it: the next norm adds it on its way.
struct Stream {
  at::Tensor residual;
  at::Tensor branch;

  // branch joins the stream; returns the norm of it.
  at::Tensor add_and_norm(const Norm& norm);
};

struct Carried {
  Stream stream;           // [T, h]; of several rows per token [T, n h], all of it the branch
  at::Tensor key, value;   // that later layers share: [T, g, d]
  at::Tensor chosen_keys;  // by the last indexer: [T, keys] int64
  at::Tensor shortcut;     // output of a mixture that joins the stream later: [T, h]

  // As a list for sending: undefined tensors keep their places, and the branch has joined the
  // stream, so that one tensor of it travels instead of two.
  std::vector<at::Tensor> packed() const;
  static Carried unpacked(const std::vector<at::Tensor>& tensors);
};

// Forgets what no layer from `next` on reads.
void drop_unread(Carried& carried, const model::ModelSpec& spec, int64_t next);

}  // namespace qianli::nn
