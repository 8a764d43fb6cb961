// Messages between the stages of a schedule.
#pragma once

#include "qianli/plan/schedule.h"

namespace qianli::plan {

// Adds sends, receives and hand-overs to programs that only compute. All messages and all
// computations are put into one order, that of a run in which forwards and both kinds of gradient
// take equally long; each stage gets its part of it. A stage that waits for another to take part in
// a message thus waits for something that is earlier in that order, so nobody waits in a circle,
// even where sends block until they are received. Messages of the same moment go: towards the next
// stage before towards the previous one, and those that even stages send before those of odd ones,
// which is Megatron-core's order for blocking messages.
// Throws ConfigError where the programs wait for each other.
void weave_messages(Schedule& schedule);

}  // namespace qianli::plan
