// torch's names of element types.
#pragma once

#include <string_view>

#include "qianli/formats/dtype.h"

namespace qianli::formats {

struct TorchType {
  std::string_view name;     // "bfloat16"; empty where torch has no such type
  std::string_view storage;  // "BFloat16Storage"; empty for the types that lie in untyped storages
};
TorchType torch_type(Dtype dtype);

}  // namespace qianli::formats
