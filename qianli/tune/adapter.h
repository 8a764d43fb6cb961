// A folder with an adapter, as PEFT writes it, on a model that it is not merged into: A and B stay
// parameters of their own, and linear layers compute with both.
//
//   const config::TuneConfig tune = tune::tuning_of(folder, spec);
//   nn::ParameterSet parameters(spec, dtype, device, /*master=*/false, {}, {}, &tune);
//   checkpoint::load_weights(model, parameters);
//   tune::load_adapter(folder, spec, parameters);
//   nn::Decoder decoder(spec, parameters);
#pragma once

#include <filesystem>

#include "qianli/config/tune_section.h"
#include "qianli/convert/adapter/adapter.h"
#include "qianli/model/spec.h"
#include "qianli/nn/parameter_set.h"

namespace qianli::tune {

// What parameters are made with that are to hold the adapter. Throws CheckpointError for one whose
// modules have several ranks or scales (such a one can be merged: `qianli convert --adapter`).
config::TuneConfig tuning_of(const std::filesystem::path& folder, const model::ModelSpec& spec);
// The same of an adapter that is open; `folder` is for messages.
config::TuneConfig tuning_of(const std::filesystem::path& folder, const convert::Adapter& adapter);

// Fills A, B and modules that the adapter has whole. Throws CheckpointError where it has others
// than the parameters, another shape or another scale.
void load_adapter(const std::filesystem::path& folder, const model::ModelSpec& spec,
                  nn::ParameterSet& parameters);

}  // namespace qianli::tune
