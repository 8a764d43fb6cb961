// Which of a machine's devices a process takes. Internal to the room and its tests.
#pragma once

#include "qianli/device/device.h"

namespace qianli::device {

// Of `devices` visible ones, at least 1. One alone is taken by each: the launcher has dealt them
// out, or the ranks find out later that they have the same. Throws ConfigError where there are
// fewer than processes.
c10::DeviceIndex local_device(int64_t devices, LocalPlace place);

}  // namespace qianli::device
