#include "qianli/checkpoint/foreign.h"

#include <fmt/core.h>

#include <stdexcept>
#include <unordered_map>

#include "qianli/base/error.h"

namespace qianli::checkpoint {
namespace {

using model::ForeignPiece;
using model::ParameterEntry;

class Collector {
 public:
  void add(size_t parameter, const ParameterEntry& entry, const std::vector<ForeignPiece>& pieces) {
    int64_t elements = 0;
    for (const ForeignPiece& piece : pieces) {
      ForeignTensor& tensor = tensor_of(piece.name, piece.shape, entry.buffer);
      tensor.parts.push_back({.parameter = parameter, .piece = piece});
      elements += piece.rows * piece.own_columns();
    }
    if (elements != entry.elements()) {
      throw ConfigError(
          "checkpoint",
          fmt::format("{} has no place in a Hugging Face folder of this family", entry.name),
          "choose a family that has this part");
    }
  }

  void add_copy(size_t parameter, const ParameterEntry& entry, const std::string& name) {
    const int64_t columns = entry.shape.back();
    ForeignPiece piece{
        .name = name, .shape = entry.shape, .columns = columns, .rows = entry.elements() / columns};
    tensor_of(name, entry.shape, entry.buffer).parts.push_back({parameter, std::move(piece)});
  }

  std::vector<ForeignTensor> take() {
    for (const ForeignTensor& tensor : tensors_) check_covered(tensor);
    return std::move(tensors_);
  }

 private:
  ForeignTensor& tensor_of(const std::string& name, const std::vector<int64_t>& shape,
                           bool buffer) {
    const auto [place, fresh] = index_.emplace(name, tensors_.size());
    if (fresh) tensors_.push_back({.name = name, .shape = shape, .buffer = buffer, .parts = {}});
    ForeignTensor& tensor = tensors_[place->second];
    if (tensor.shape != shape) throw std::logic_error("two shapes for " + name);
    return tensor;
  }

  static void check_covered(const ForeignTensor& tensor) {
    int64_t elements = 0;
    for (const ForeignPart& part : tensor.parts) {
      elements += part.piece.rows * part.piece.own_columns();
    }
    if (elements != tensor.parts[0].piece.elements()) {
      throw std::logic_error("the parts of " + tensor.name + " do not cover it");
    }
  }

  std::vector<ForeignTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

// Rows [first, first + rows) of a matrix, or the woven ones: [rows / block, block, columns].
at::Tensor woven_rows(const at::Tensor& matrix, const ForeignPiece& piece) {
  if (piece.block == 0) return matrix.narrow(0, piece.foreign_row, piece.rows);
  const int64_t groups = piece.rows / piece.block, row = matrix.stride(0);
  return matrix.as_strided({groups, piece.block, matrix.size(1)},
                           {piece.stride * row, row, matrix.stride(1)},
                           matrix.storage_offset() + piece.foreign_row * row);
}

}  // namespace

std::vector<ForeignTensor> foreign_tensors(const nn::ParameterSet& parameters,
                                           const HasTensor& stored) {
  Collector collector;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const ParameterEntry& entry = parameters.entry(i);
    const bool other = stored && !entry.hugging_face_also.empty() &&
                       !stored(entry.hugging_face[0].name) &&
                       stored(entry.hugging_face_also[0].name);
    collector.add(i, entry, other ? entry.hugging_face_also : entry.hugging_face);
    if (stored) continue;
    for (const std::string& name : entry.hugging_face_copies) collector.add_copy(i, entry, name);
  }
  return collector.take();
}

at::Tensor foreign_rows(const ForeignPiece& piece, const at::Tensor& stored) {
  const int64_t rows = stored.numel() / piece.slices / piece.columns;
  at::Tensor matrix = stored.reshape({piece.slices, rows, piece.columns}).select(0, piece.index);
  if (piece.transposed) matrix = matrix.t();
  return woven_rows(matrix, piece);
}

at::Tensor own_rows(const ForeignPiece& piece, const at::Tensor& parameter) {
  const int64_t columns = piece.own_columns();
  const at::Tensor rows = parameter.view({-1, columns}).narrow(0, piece.first_row, piece.rows);
  return piece.block == 0 ? rows : rows.view({piece.rows / piece.block, piece.block, columns});
}

}  // namespace qianli::checkpoint
