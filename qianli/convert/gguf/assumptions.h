// Where llama.cpp computes something else than a file says, or cannot open it, because it knows the
// models of a family by their sizes. The files are right, and this program reads them as they are.
// Seen with llama.cpp b11549 (tools/reference/check_llamacpp.py).
#pragma once

#include <string>
#include <vector>

#include "qianli/convert/gguf/architecture.h"
#include "qianli/model/spec.h"

namespace qianli::convert {

// A sentence for each assumption that `spec` does not meet.
std::vector<std::string> missed_assumptions(const model::ModelSpec& spec,
                                            const GgufArchitecture& architecture);

}  // namespace qianli::convert
