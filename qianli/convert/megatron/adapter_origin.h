// What a PEFT adapter was before it was told in Megatron's layers, kept beside them.
#pragma once

#include <map>
#include <string>

#include "qianli/convert/adapter/adapter.h"

namespace qianli::convert {

// A module's rows of its layer's A, and columns of its B; other columns are zero.
struct ModulePlace {
  int64_t offset = 0, rank = 0;
};
using ModulePlaces = std::map<std::string, ModulePlace>;

// The argument that holds it, as text: {"config": adapter_config.json, "modules": {name: [offset,
// rank]}}.
inline constexpr const char* kAdapterOrigin = "qianli_adapter";

std::string origin_text(const OrderedJson& config, const ModulePlaces& places);

// The adapter that `text` tells of; `adapter` itself where it has numbers beside the modules'
// places, because it was trained since. Throws CheckpointError, naming `source`, where they
// contradict each other.
AdapterSource as_it_was(AdapterSource adapter, const std::string& text, const std::string& source);

}  // namespace qianli::convert
