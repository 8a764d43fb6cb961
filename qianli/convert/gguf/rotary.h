// Rotary positions as the keys and factor tensors of a GGUF file, and back.
#pragma once

#include "qianli/convert/gguf/spec.h"

namespace qianli::convert {

void write_rotary_keys(const model::ModelSpec& spec, const std::string& prefix, GgufKeys& keys);
// `spec` has its sizes already.
void read_rotary_keys(const GgufSight& sight, const std::string& prefix, model::ModelSpec& spec);

}  // namespace qianli::convert
