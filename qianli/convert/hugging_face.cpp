#include "qianli/convert/hugging_face.h"

#include <unordered_map>

namespace qianli::convert {
namespace {

Part part_of(size_t parameter, const model::ForeignPiece& piece) {
  const int64_t slice = piece.elements() / piece.slices;
  return {.parameter = parameter,
          .first_row = piece.first_row,
          .rows = piece.rows,
          .columns = piece.own_columns(),
          .offset = piece.index * slice,
          .foreign_rows = slice / piece.columns,
          .foreign_columns = piece.columns,
          .transposed = piece.transposed,
          .foreign_row = piece.foreign_row,
          .block = piece.block,
          .stride = piece.stride};
}

const std::vector<model::ForeignPiece>& spelling(
    const model::ParameterEntry& entry, const std::function<bool(const std::string&)>& has) {
  const auto& other = entry.hugging_face_also;
  return has && !other.empty() && has(other.front().name) ? other : entry.hugging_face;
}

}  // namespace

std::vector<ForeignTensor> hugging_face_tensors(
    const Table& table, const std::function<bool(const std::string&)>& has) {
  std::vector<ForeignTensor> tensors;
  std::unordered_map<std::string, size_t> places;
  for (size_t i = 0; i < table.size(); ++i) {
    for (const model::ForeignPiece& piece : spelling(table[i], has)) {
      const auto [place, added] = places.try_emplace(piece.name, tensors.size());
      if (added) tensors.push_back({.name = piece.name, .shape = piece.shape});
      tensors[place->second].parts.push_back(part_of(i, piece));
    }
    for (const std::string& name : table[i].hugging_face_copies) {
      if (has && !has(name)) continue;
      Part whole{
          .parameter = i, .rows = matrix_rows(table[i]), .columns = matrix_columns(table[i])};
      whole.foreign_rows = whole.rows;
      whole.foreign_columns = whole.columns;
      tensors.push_back({.name = name, .shape = table[i].shape, .parts = {whole}, .copy = true});
    }
  }
  return tensors;
}

}  // namespace qianli::convert
