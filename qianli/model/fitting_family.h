// Which family has words for a model that was described without one.
#pragma once

#include <optional>

#include "qianli/model/spec.h"

namespace qianli::model {

// `spec` as a member of the first family whose config.json reads back to it; its own family does
// not matter. Of two spellings of the same router (softmax over the chosen experts, or over all and
// then divided by their sum) the one that the family has. Nothing where no family fits.
std::optional<ModelSpec> as_family_member(const ModelSpec& spec);

}  // namespace qianli::model
