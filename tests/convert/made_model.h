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
model::ModelSpec small_model(const std::string& name);

// float32 elements of any bits, different everywhere.
std::unique_ptr<convert::ModelSource> made_model(const model::ModelSpec& spec);
// Numbers between -0.5 and 0.5 for the parameters of any table.
std::unique_ptr<convert::ModelSource> made_numbers(const model::ModelSpec& spec,
                                                   convert::Table table);

// Throws std::out_of_range where there is none.
const convert::ForeignTensor& tensor_named(const std::vector<convert::ForeignTensor>& tensors,
                                           const std::string& name, size_t file = 0);
// The parameter's row in each row of the tensor, -1 for padding.
std::vector<int64_t> rows_of(const convert::ForeignTensor& tensor);

// The bytes of a folder's model.safetensors.
std::string weights(const std::filesystem::path& folder);

}  // namespace qianli::testing
