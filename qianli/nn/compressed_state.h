// What a layer of compressed attention keeps of the tokens already seen by one sequence: the keys
// of its window, the compressed ones, and the tokens that are not yet in one.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "qianli/model/spec.h"

namespace qianli::nn {

struct CompressorState {
  at::Tensor keys;  // [room, size], of which the first `count` are there
  int64_t count = 0;
  at::Tensor kv, gate;  // [tokens, channels] of the windows from the last whole one on that
                        // overlaps the next, or from the first that is not whole

  // Behind those that are there. rows: [new, size].
  void append(const at::Tensor& rows);
};

struct CompressedState {
  at::Tensor recent;  // [tokens, head_dim]: the last keys, as many as a later token may see
  CompressorState keys, index_keys;
};

// Of several sequences, each in a slot.
struct CompressedStates {
  std::vector<CompressedState> slots;

  bool defined() const { return !slots.empty(); }
  // Back to before the first token.
  void reset(int64_t slot);
  void copy(int64_t from, int64_t to);
};

// Of layer `index`; no slots in models without compressed attention.
CompressedStates make_compressed_states(const model::ModelSpec& spec, int64_t index, int64_t slots,
                                        const at::TensorOptions& options);
// Numbers that a token of a sequence leaves for good, rounded up; and those that a sequence needs
// besides.
int64_t compressed_elements_per_token(const model::ModelSpec& spec, int64_t index);
int64_t compressed_fixed_elements(const model::ModelSpec& spec, int64_t index);

}  // namespace qianli::nn
