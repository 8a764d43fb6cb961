// Decoders of every kind that a cache knows, as small as they can be.
#pragma once

#include <map>
#include <string>

#include "qianli/model/spec.h"

namespace qianli::testing {

// dense, window, some_windows, latent, indexer, mixture, mamba2, hybrid.
std::map<std::string, model::ModelSpec> small_specs();

}  // namespace qianli::testing
