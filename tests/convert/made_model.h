// Small models of every family, with weights that are made up.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qianli/convert/model_source.h"

namespace qianli::testing {

struct NamedSpec {
  std::string name;
  model::ModelSpec spec;
};

// Those of tests/golden/families.json, as transformers saves them, and of
// tests/convert/families.json, whose code is not in transformers.
std::vector<NamedSpec> small_models();

// float32 elements of any bits, different everywhere.
std::unique_ptr<convert::ModelSource> made_model(const model::ModelSpec& spec);

}  // namespace qianli::testing
