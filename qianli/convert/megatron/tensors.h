// The tensors of a Megatron checkpoint, format `torch`: one file per (tensor, pipeline, expert)
// rank.
//
// Names and cuts: Megatron-LM core_v0.12, megatron/core/models/gpt and megatron/core/transformer;
// MindSpeed-LLM 2.2, mindspeed_llm/tasks/checkpoint.
#pragma once

#include "qianli/convert/foreign_tensor.h"
#include "qianli/convert/megatron/layout.h"

namespace qianli::convert {

// file: index into megatron_ranks(). Names begin with the chunk's key: model., or model0. and so on
// where a stage has several. What every rank of a group holds alike is a copy on all but the first.
// Throws ConfigError where the layout does not fit, or the target has no place for a part of the
// model; says which.
std::vector<ForeignTensor> megatron_tensors(const model::ModelSpec& spec, const Table& table,
                                            const MegatronLayout& layout);

// Names of the modules of a file whose `._extra_state` a strict load in Megatron-core expects.
std::vector<std::string> modules_with_extra_state(const std::vector<ForeignTensor>& tensors,
                                                  size_t file);

}  // namespace qianli::convert
