// How large the staging buffers of HCCL's communicators have to be for what passes through them.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "qianli/config/config.h"
#include "qianli/model/spec.h"

namespace qianli::plan {

struct MessageSizes {
  int64_t sequence = 1;       // tokens
  int64_t context = 1;        // ranks that share one
  int64_t tensor = 1;         // ranks
  bool split_tokens = false;  // between blocks, over the ranks of `tensor`
  int64_t rows = 1;           // sequences of a microbatch
  int64_t hidden = 1;
  int64_t experts_of_token = 0;  // 0: no experts
  double expert_factor = -1;     // for tokens spread unevenly; -1: as large as HCCL's default
};

// Bytes by name of the group (tensor, stages, experts …), HCCL's default of 200 MB for those that
// are not named. MindSpeed's --hccl-group-buffer-adaptive (its docs/features/
// hccl-group-buffer-set.md): twice what a bf16 activation of one byte a number would take, in MB.
std::map<std::string, int64_t> adaptive_buffers(const MessageSizes& sizes);
MessageSizes message_sizes(const config::Config& config, const model::ModelSpec& spec);

}  // namespace qianli::plan
