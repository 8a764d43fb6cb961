#include "tests/support/stored_tensors.h"

#include <ATen/ops/from_blob.h>

#include <stdexcept>

namespace qianli::testing {
namespace {

at::ScalarType scalar_type(formats::Dtype dtype) {
  switch (dtype) {
    case formats::Dtype::kF64:
      return at::kDouble;
    case formats::Dtype::kF32:
      return at::kFloat;
    case formats::Dtype::kI64:
      return at::kLong;
    case formats::Dtype::kI32:
      return at::kInt;
    case formats::Dtype::kI8:
      return at::kChar;
    case formats::Dtype::kU8:
      return at::kByte;
    default:
      throw std::invalid_argument("stored_tensor: F64, F32 or whole numbers");
  }
}

}  // namespace

at::Tensor stored_tensor(const formats::SafetensorsFile& file, const std::string& name) {
  const formats::TensorEntry& entry = file.at(name);
  auto* bytes = const_cast<std::byte*>(entry.bytes.data());
  return at::from_blob(bytes, entry.shape, scalar_type(entry.dtype)).clone();
}

at::Tensor foreign_rows(const model::ForeignPiece& piece, const at::Tensor& stored) {
  const int64_t rows = stored.numel() / piece.slices / piece.columns;
  at::Tensor matrix = stored.reshape({piece.slices, rows, piece.columns}).select(0, piece.index);
  if (piece.transposed) matrix = matrix.t();
  if (piece.block == 0) return matrix.narrow(0, piece.foreign_row, piece.rows);
  const int64_t groups = piece.rows / piece.block, row = matrix.stride(0);
  return matrix.as_strided({groups, piece.block, matrix.size(1)},
                           {piece.stride * row, row, matrix.stride(1)},
                           matrix.storage_offset() + piece.foreign_row * row);
}

at::Tensor own_rows(const model::ForeignPiece& piece, const at::Tensor& parameter) {
  const int64_t columns = piece.own_columns();
  const at::Tensor rows = parameter.view({-1, columns}).narrow(0, piece.first_row, piece.rows);
  return piece.block == 0 ? rows : rows.view({piece.rows / piece.block, piece.block, columns});
}

}  // namespace qianli::testing
