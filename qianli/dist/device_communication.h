// Communication between devices of this process's kind: NCCL between CUDA devices, HCCL between
// NPUs, from the library that serves the device.
#pragma once

#include <c10/core/Device.h>

#include "qianli/dist/world.h"

namespace qianli::dist {

// For tensors on `device`. `options` by name of the group; NCCL has one buffer size for all
// communicators, for which the largest is taken. Of the CPU none is needed: its tensors travel by
// Gloo. Throws ConfigError where the library has no communicators.
Devices devices_of(c10::Device device, std::map<std::string, config::CommunicatorOptions> options);

}  // namespace qianli::dist
