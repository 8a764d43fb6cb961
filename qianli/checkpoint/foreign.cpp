#include "qianli/checkpoint/foreign.h"

#include <fmt/core.h>

#include <algorithm>
#include <unordered_map>

#include "qianli/base/error.h"

namespace qianli::checkpoint {

std::vector<ForeignTensor> foreign_tensors(const nn::ParameterSet& parameters) {
  std::vector<ForeignTensor> tensors;
  std::unordered_map<std::string, size_t> index;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const model::ParameterEntry& entry = parameters.entry(i);
    int64_t rows = 0;
    for (const model::ForeignPiece& piece : entry.hugging_face) {
      const auto [place, fresh] = index.emplace(piece.name, tensors.size());
      if (fresh) {
        tensors.push_back(
            {.name = piece.name, .shape = entry.shape, .transposed = piece.transposed});
        tensors.back().shape[0] = 0;
      }
      ForeignTensor& tensor = tensors[place->second];
      tensor.parts.push_back({.parameter = i,
                              .first_row = piece.first_row,
                              .rows = piece.rows,
                              .foreign_row = piece.foreign_row});
      tensor.shape[0] = std::max(tensor.shape[0], piece.foreign_row + piece.rows);
      rows += piece.rows;
    }
    if (rows != entry.shape[0]) {
      throw ConfigError(
          "checkpoint",
          fmt::format("{} has no place in a Hugging Face folder of this family", entry.name),
          "choose a family that has this part");
    }
  }
  for (ForeignTensor& tensor : tensors) {
    if (tensor.transposed) std::swap(tensor.shape.at(0), tensor.shape.at(1));
  }
  return tensors;
}

}  // namespace qianli::checkpoint
