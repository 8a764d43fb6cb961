#include "qianli/model/stacked_experts.h"

#include <fmt/core.h>

#include <string_view>

namespace qianli::model {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kFirstExpert = ".experts.0.";

}  // namespace

bool is_stacked(const ParameterEntry& weight) {
  return weight.expert && weight.shape.size() == 3 && !weight.hugging_face.empty() &&
         weight.hugging_face.front().name.find(kFirstExpert) == std::string::npos;
}

std::string expert_module(const std::string& tensor, int64_t expert) {
  constexpr std::string_view kExperts = ".experts.";
  std::string module = tensor;
  if (module.ends_with(kWeight)) module.resize(module.size() - kWeight.size());
  const size_t at = module.find(kExperts);
  if (at != module.npos) return module.insert(at + kExperts.size(), fmt::format("{}.", expert));
  return module.insert(module.rfind('.') + 1, fmt::format("experts.{}.", expert));
}

std::string of_expert(const std::string& first_module, int64_t expert) {
  std::string module = first_module;
  const size_t at = module.find(kFirstExpert);
  if (at == module.npos) return module;
  return module.replace(at, kFirstExpert.size(), fmt::format(".experts.{}.", expert));
}

std::vector<ForeignPiece> pieces_apart(const ParameterEntry& weight,
                                       const std::vector<ForeignPiece>& pieces) {
  const int64_t experts = weight.shape[0], rows = weight.shape[1];
  std::vector<ForeignPiece> apart;
  const auto add = [&](const ForeignPiece& piece, int64_t expert, int64_t expert_rows,
                       int64_t foreign_row) {
    apart.push_back({.name = expert_module(piece.name, expert).append(kWeight),
                     .shape = {expert_rows, piece.own_columns()},
                     .columns = piece.own_columns(),
                     .first_row = expert * rows + piece.first_row % rows,
                     .rows = std::min(piece.rows, rows),
                     .foreign_row = foreign_row,
                     .block = piece.block,
                     .stride = piece.stride});
  };
  for (const ForeignPiece& piece : pieces) {
    if (piece.rows > rows) {  // all experts, one behind the other
      for (int64_t e = 0; e < experts; ++e) add(piece, e, rows, 0);
      continue;
    }
    const int64_t expert = piece.first_row / rows;
    const bool sliced = piece.slices == experts;
    const int64_t expert_rows = sliced ? piece.slice_rows() : piece.slice_rows() / experts;
    add(piece, expert, expert_rows, piece.foreign_row - (sliced ? 0 : expert * expert_rows));
  }
  return apart;
}

std::vector<ForeignPiece> module_pieces(const ParameterEntry& weight) {
  return is_stacked(weight) ? pieces_apart(weight, weight.hugging_face) : weight.hugging_face;
}

}  // namespace qianli::model
