// How much communication goes on beside what a thread computes: what overlap is measured by.
#pragma once

#include <cstdint>

namespace qianli::dist {

// Collectives and messages that this thread has started and nobody has waited for.
int64_t under_way();

}  // namespace qianli::dist
