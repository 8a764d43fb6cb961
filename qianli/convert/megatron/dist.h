// A Megatron checkpoint of format `torch_dist`: whole tensors in chunks, whatever the ranks were.
//
// Names: Megatron-LM core_v0.12, megatron/core/**, sharded_state_dict. Layers that are alike are
// one tensor with an axis of layers in front, `decoder.layers.mlp.linear_fc1.weight`, or where they
// are not, have their number in the name; experts are one tensor with an axis of experts; norms are
// named as fused with the linear behind them.
#pragma once

#include <filesystem>
#include <memory>

#include "qianli/convert/foreign_tensor.h"
#include "qianli/convert/model_source.h"

namespace qianli::convert {

// An iteration's folder: .metadata and common.pt.
bool is_megatron_dist(const std::filesystem::path& iteration);

std::unique_ptr<ModelSource> open_megatron_dist(const std::filesystem::path& iteration,
                                                const SourceOptions& options);

// `tensors`, of one rank that holds all (megatron_tensors), under the names of `source`. What is
// not there keeps its name.
std::vector<ForeignTensor> joined_layers(const std::vector<ForeignTensor>& tensors,
                                         const model::ModelSpec& spec,
                                         const formats::TensorSource& source);

}  // namespace qianli::convert
