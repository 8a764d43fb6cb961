// The devices of a job's ranks, and how they communicate.
#pragma once

#include <c10/core/Device.h>

#include <functional>

#include "qianli/config/config.h"
#include "qianli/dist/world.h"
#include "qianli/model/spec.h"
#include "qianli/train/ranks.h"

namespace qianli::train {

// How this rank's device communicates with the others', as parallel.communicators and, on NPUs,
// parallel.adaptive_buffers have it; the latter ask for the model. `speaks`: for all ranks, of what
// has no effect on the device.
dist::Devices devices_for(c10::Device device, const config::Config& config, bool speaks,
                          const std::function<model::ModelSpec()>& model);

// Every rank calls them. Throw ConfigError on all where two ranks have the same device, and, once
// all groups are made, where parallel.communicators names one that is not among them.
void expect_own_devices(const dist::World& world, c10::Device device);
void expect_known_groups(const Ranks& ranks, const std::string& communicators);

}  // namespace qianli::train
