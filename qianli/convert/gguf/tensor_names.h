// What GGUF calls a parameter that one tensor holds.
#pragma once

#include <string>
#include <string_view>

#include "qianli/convert/gguf/architecture.h"
#include "qianli/model/parameter_table.h"

namespace qianli::convert {

// "decoder.layers.3.mlp.router.weight" is "mlp.router" with a suffix in "blk.3.". Views into the
// entry's name.
struct GgufParameter {
  explicit GgufParameter(const model::ParameterEntry& entry);

  std::string block;  // empty outside the layers
  std::string_view name;
  std::string_view suffix;  // ".weight", ".bias", or empty where the parameter has none
  bool ahead = false;       // beside the layer of a head further ahead
};

// The name of the tensor within its block, without the parameter's suffix unless it has one of its
// own; empty where GGUF has none. Not for parameters that lie in several tensors.
std::string_view gguf_name(const GgufParameter& parameter, const model::ModelSpec& spec,
                           const GgufArchitecture& architecture);

}  // namespace qianli::convert
