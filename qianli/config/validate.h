// Checks that span several keys, with the places the keys came from.
#pragma once

#include "qianli/config/read.h"

namespace qianli::config {

void validate_at(const Config& config, const Places& places);
// Logs a warning for each option that was changed but does nothing in this run.
void warn_without_effect(const Config& config, const Places& places);

}  // namespace qianli::config
