// Tensors that are put together from a model's parameters as they are asked for.
#pragma once

#include <memory>
#include <string>

#include "qianli/convert/model_source.h"
#include "qianli/formats/tensor_source.h"

namespace qianli::convert {

// `tensors` told in parameters of `model`, each in the type that its first parameter is stored in.
// `source` is what messages call it.
std::shared_ptr<const formats::TensorSource> assembled_source(
    std::shared_ptr<const ModelSource> model, std::vector<ForeignTensor> tensors,
    std::string source);

}  // namespace qianli::convert
