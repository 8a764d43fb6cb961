// Where the collectives of the data-parallel group begin.
#pragma once

#include "qianli/plan/schedule.h"

namespace qianli::plan {

// Puts into a program of compute instructions: parameters of the first two chunks are gathered at
// once, those of a later chunk when the chunk before it starts; a chunk's gradients are reduced
// when its last is in. `shift` steps earlier and later than that, respectively: stage r of an
// interleaved schedule is about r steps behind the first going forward and ahead of it going back,
// so with shift r all stages begin together (Megatron-core's align_param_gather and
// align_grad_reduce).
void add_collectives(Program& program, int32_t chunks, int64_t shift);

}  // namespace qianli::plan
