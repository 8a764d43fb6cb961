#include "qianli/formats/torch_types.h"

namespace qianli::formats {

TorchType torch_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBool:
      return {"bool", "BoolStorage"};
    case Dtype::kU8:
      return {"uint8", "ByteStorage"};
    case Dtype::kI8:
      return {"int8", "CharStorage"};
    case Dtype::kI16:
      return {"int16", "ShortStorage"};
    case Dtype::kI32:
      return {"int32", "IntStorage"};
    case Dtype::kI64:
      return {"int64", "LongStorage"};
    case Dtype::kF16:
      return {"float16", "HalfStorage"};
    case Dtype::kBF16:
      return {"bfloat16", "BFloat16Storage"};
    case Dtype::kF32:
      return {"float32", "FloatStorage"};
    case Dtype::kF64:
      return {"float64", "DoubleStorage"};
    case Dtype::kC64:
      return {"complex64", "ComplexFloatStorage"};
    case Dtype::kU16:
      return {"uint16", ""};
    case Dtype::kU32:
      return {"uint32", ""};
    case Dtype::kU64:
      return {"uint64", ""};
    case Dtype::kF8E4M3:
      return {"float8_e4m3fn", ""};
    case Dtype::kF8E5M2:
      return {"float8_e5m2", ""};
    case Dtype::kF8E8M0:
      return {"float8_e8m0fnu", ""};
    case Dtype::kF8E4M3Fnuz:
      return {"float8_e4m3fnuz", ""};
    case Dtype::kF8E5M2Fnuz:
      return {"float8_e5m2fnuz", ""};
    default:
      return {"", ""};
  }
}

}  // namespace qianli::formats
