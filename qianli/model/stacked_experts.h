// Experts that a Hugging Face folder holds in one tensor, told one by one: adapters have a module
// for each of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qianli/model/parameter_table.h"

namespace qianli::model {

// Whether the folder has no tensors for single experts of this weight (gpt-oss, Step-3.5, DBRX).
bool is_stacked(const ParameterEntry& weight);

// The module that an expert would be in a tensor of all of them:
// "a.mlp.experts.gate_up_proj" is "a.mlp.experts.3.gate_up_proj", "a.moe.up_proj.weight" is
// "a.moe.experts.3.up_proj".
std::string expert_module(const std::string& tensor, int64_t expert);

// A module of the first expert as that of another: "a.experts.0.w1" is "a.experts.3.w1". Modules of
// no expert are what they are.
std::string of_expert(const std::string& first_module, int64_t expert);

// `pieces` of a weight of experts as if each of these modules had a weight [out, in] of its own;
// rows keep the folder's order.
std::vector<ForeignPiece> pieces_apart(const ParameterEntry& weight,
                                       const std::vector<ForeignPiece>& pieces);

// The weight's pieces in the folder, apart where it is stacked.
std::vector<ForeignPiece> module_pieces(const ParameterEntry& weight);

}  // namespace qianli::model
