// What the layers of one forward pass share.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "qianli/nn/decoder_input.h"
#include "qianli/nn/parallel.h"
#include "qianli/nn/rotary_table.h"
#include "qianli/nn/shared_linear.h"

namespace qianli::nn {

// Called with every named activation of a forward pass; used to find the first non-finite one.
using Observer = std::function<void(const std::string& name, const at::Tensor& value)>;

struct ForwardPass {
  const DecoderInput& input;
  RotaryTables& rotary;
  const Observer& observer;
  const Parallel& parallel;
  // How ranks hold the tokens between the blocks, and within one between its first and last linear
  // layers.
  Side stream = {}, inner = {};
  at::Tensor positions = {};  // [T] of the tokens within a block
  int64_t first_column = 0;   // of the stream's that this rank has

  // Left by one layer for those after it.
  at::Tensor key,
      value;  // projections that other layers share, before positions and norms: [T, g, d]
  at::Tensor chosen_keys;  // by the last indexer
  at::Tensor shortcut;     // output of a mixture that joins the stream later: [T, h]

  int64_t tokens() const { return input.tokens.size(0); }
  void report(const std::string& name, const at::Tensor& activation) const {
    if (observer) observer(name, activation);
  }
};

}  // namespace qianli::nn
