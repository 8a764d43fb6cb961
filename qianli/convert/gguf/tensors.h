// The tensors of a GGUF file: names of gguf-py's tables, layouts of llama.cpp's converter.
#pragma once

#include <functional>
#include <string>

#include "qianli/convert/foreign_tensor.h"
#include "qianli/convert/gguf/architecture.h"

namespace qianli::convert {

// In the table's order. Where `has` tells which tensors a file holds, those that it has are named
// among layouts that llama.cpp reads alike: queries, keys and values in one tensor or three, the
// latents' keys and values in one or two, the experts' gate and up in one or two,
// a tensor for each expert.
std::vector<ForeignTensor> gguf_tensors(const model::ModelSpec& spec, const Table& table,
                                        const GgufArchitecture& architecture,
                                        const std::function<bool(const std::string&)>& has = {});

}  // namespace qianli::convert
