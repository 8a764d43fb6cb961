// The states of an optimizer in a Megatron checkpoint of format torch_dist, as tensors with the
// names and shapes of the model's.
//
// Their names are "optimizer.state.exp_avg.NAME", behind "chained_0." and so on where experts have
// an optimizer of their own. A state is stored whole, or flat: each rank's cut of the tensor in a
// row, [number of cuts along each axis …, elements of a cut], of which each replica writes a range
// (fully_sharded_model_space). Megatron-LM core_v0.12, megatron/core/optimizer/distrib_optimizer.py
// and megatron/core/dist_checkpointing/strategies/torch.py.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>

#include "qianli/formats/distributed_checkpoint.h"

namespace qianli::convert {

inline constexpr std::string_view kMasterWeights = "fp32_param";
inline constexpr std::string_view kExpAvg = "exp_avg", kExpAvgSq = "exp_avg_sq";

// Whether a message's "file: name" is of a state.
bool names_optimizer_state(std::string_view text);

// The names of all that have states; none where an optimizer was not saved.
std::unordered_set<std::string> tensors_with_states(
    const formats::DistributedCheckpoint& checkpoint);

// All states of one kind. `model` is the checkpoint's model: what has no state there, a buffer, is
// given as in the model among kMasterWeights, and as zeros among others. Throws CheckpointError for
// a state of a tensor that the model does not have, or whose cuts are not that tensor's.
std::shared_ptr<const formats::TensorSource> open_optimizer_states(
    std::shared_ptr<const formats::DistributedCheckpoint> checkpoint,
    std::shared_ptr<const formats::TensorSource> model, std::string_view kind);

}  // namespace qianli::convert
