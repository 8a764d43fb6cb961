// Tensors of Hugging Face's names with an adapter (LoRA, rsLoRA, DoRA) merged into them.
//
// Names and arithmetic: PEFT 0.21, peft/tuners/lora/layer.py and dora.py:
//   X.weight = W + scale * B A                        lora_A [r, in], lora_B [out, r]
//   X.weight = m / |W + scale * B A| * (W + scale * B A)   DoRA, a norm per output
// transposed where X is a Conv1D of GPT-2 or an embedding. Whole tensors of the adapter
// (modules_to_save, biases) take the place of the base's.
#pragma once

#include <functional>
#include <memory>

#include "qianli/convert/adapter/adapter.h"
#include "qianli/formats/tensor_source.h"

namespace qianli::convert {

struct BaseNames {
  // The base's tensor of a name that some model of transformers gives it; null where there is none.
  std::function<const formats::TensorSpec*(const std::string& name)> find;
  // Whether it is stored [in, out].
  std::function<bool(const std::string& name)> is_transposed;
};

// The base's tensors, the merged ones as float32 and to be written in the base's own type. Rows are
// merged as they are asked for. Throws CheckpointError where a tensor of the adapter has no place
// in the base or another shape than it needs. `names` is used during the call only.
std::shared_ptr<const formats::TensorSource> merge_adapter(
    std::shared_ptr<const formats::TensorSource> base, const Adapter& adapter,
    const BaseNames& names);

}  // namespace qianli::convert
