// Adapters of experts whose weights transformers holds in one tensor (target_parameters), as a PEFT
// folder has them. PEFT 0.21, peft/tuners/lora/layer.py, ParamWrapper. Of E experts with rank r:
//
//   X.lora_A.weight [E r, in]    rows e r to e r + r - 1 are those of expert e
//   X.lora_B.weight [out, r E]   column k E + e is the k-th of expert e
//
// X is the module that the tensor belongs to. Where several of its tensors have adapters, that
// which the module declares last has this name; those before it are of X.base_layer,
// X.base_layer.base_layer, and so on.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "qianli/convert/adapter/config.h"
#include "qianli/convert/foreign_tensor.h"
#include "qianli/formats/tensor_source.h"

namespace qianli::convert {

// The folder's tensors with a pair of matrices for each expert, under the names that it has in the
// folder of `base`, or model::expert_module() where that has none for single experts. Gate and up
// of one tensor have the same A. Throws CheckpointError where the base has no such experts or the
// shapes are not theirs.
std::shared_ptr<const formats::TensorSource> experts_apart(
    std::shared_ptr<const formats::TensorSource> folder, const AdapterConfig& config,
    const Table& base);

// The way back for models whose folders have no tensors for single experts. Throws CheckpointError
// for those that PEFT sees as one matrix (DBRX).
std::vector<ForeignTensor> experts_stacked(std::vector<ForeignTensor> tensors, const Table& base);

// target_parameters for stacked tensors of `base` of which `is_adapted` knows the first expert's
// module: the part behind the layer's number, or whole names where only some layers are adapted.
std::vector<std::string> target_parameters(
    const Table& base, const std::function<bool(const std::string& module)>& is_adapted);

}  // namespace qianli::convert
