// The ranks that compute the same samples together with this one, and how they share the work. A
// group of one is the serial case.
#pragma once

#include "qianli/dist/group.h"

namespace qianli::nn {

struct Parallel {
  dist::Group tensor;     // each holds a part of every layer
  bool sequence = false;  // the ranks of `tensor` share the tokens, too, between the blocks
  // Two-dimensional, of x y ranks: those that share heads, MLP widths and, between the blocks, the
  // tokens (x), and those that share the columns of the stream and, within a block, the tokens (y).
  // One-dimensional: alone.
  dist::Group tensor_x, tensor_y;
  int64_t slices = 1;   // of tokens: what one of them exchanges overlaps with another's products
  dist::Group context;  // each takes a part of every sequence
  // What attends together: its parts, with those of `tensor_y` (plan::context_parts).
  dist::Group context_heads, context_ring;
  dist::Group experts;  // each holds some of the experts of every mixture
  // How tokens come to the experts of other ranks: only the rows that are wanted there, or all
  // tokens to all ranks, which is less work where they are few or every token wants many experts.
  enum class Dispatcher { kAllToAll, kAllGather };
  Dispatcher dispatcher = Dispatcher::kAllToAll;
  // Each holds a part of the same experts: neighbours in `tensor`, whose ranks share the tokens of
  // a mixture where these are not all of them.
  dist::Group expert_tensor;

  bool two_dimensional() const { return !tensor_y.alone(); }
};

}  // namespace qianli::nn
