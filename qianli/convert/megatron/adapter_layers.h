// Megatron's linear layers that have an adapter, each told from what the ranks hold of it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "qianli/convert/foreign_tensor.h"
#include "qianli/convert/megatron/layout.h"
#include "qianli/formats/tensor_source.h"

namespace qianli::convert {

using RankSources = std::vector<std::shared_ptr<const formats::TensorSource>>;

struct AdaptedLayer {
  std::string name;  // model.decoder.layers.0.mlp.linear_fc1, on its stage
  std::string a, b;  // of the names of its A and B: .lora_A.default.weight
  int64_t rank = 0;
  std::vector<const ForeignTensor*> weights;  // on all ranks that hold some of it, copies too
};

// All linear layers of the base, whose tensors are `tensors`; a, b and rank are left open.
std::vector<AdaptedLayer> linear_layers(const std::vector<ForeignTensor>& tensors,
                                        const std::vector<MegatronRank>& ranks);

// Those that have an adapter in the files. Throws CheckpointError for tensors of an adapter that
// belong to no linear layer.
std::vector<AdaptedLayer> adapted_layers(const std::vector<ForeignTensor>& tensors,
                                         const std::vector<MegatronRank>& ranks,
                                         const RankSources& files);

}  // namespace qianli::convert
