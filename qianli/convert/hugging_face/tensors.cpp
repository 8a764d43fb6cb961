#include "qianli/convert/hugging_face/tensors.h"

#include <algorithm>
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

class Collector {
 public:
  explicit Collector(const Table& table) : table_(table) {}

  void add(size_t parameter, const model::ForeignPiece& piece, const std::string& name) {
    const auto [place, added] = places_.try_emplace(name, tensors_.size());
    if (added) tensors_.push_back({.name = name, .shape = piece.shape});
    tensors_[place->second].parts.push_back(part_of(parameter, piece));
  }
  void add_copy(size_t parameter, const std::string& name) {
    ForeignTensor whole = rows_of(table_, parameter, 0, matrix_rows(table_[parameter]));
    whole.name = name;
    whole.shape = table_[parameter].shape;
    whole.copy = true;
    tensors_.push_back(std::move(whole));
  }
  std::vector<ForeignTensor> take() { return std::move(tensors_); }

 private:
  const Table& table_;
  std::vector<ForeignTensor> tensors_;
  std::unordered_map<std::string, size_t> places_;
};

bool is_tied(const Table& table) {
  const auto is_output = [](const auto& entry) { return entry.name == "output_layer.weight"; };
  return std::ranges::none_of(table, is_output);
}

}  // namespace

std::vector<ForeignTensor> hugging_face_tensors(const Table& table) {
  Collector collector(table);
  for (size_t i = 0; i < table.size(); ++i) {
    for (const model::ForeignPiece& piece : table[i].hugging_face) {
      collector.add(i, piece, piece.name);
    }
    for (const std::string& name : table[i].hugging_face_copies) collector.add_copy(i, name);
  }
  return collector.take();
}

std::vector<ForeignTensor> stored_tensors(const Table& table, const FolderNames& names) {
  Collector collector(table);
  const bool tied = is_tied(table);
  for (size_t i = 0; i < table.size(); ++i) {
    const model::ParameterEntry& entry = table[i];
    const auto& also = entry.hugging_face_also;
    const bool other = !also.empty() && !names.find(entry.hugging_face.front().name) &&
                       names.find(also.front().name);
    for (const model::ForeignPiece& piece : other ? also : entry.hugging_face) {
      const formats::TensorSpec* found = names.find(piece.name);
      collector.add(i, piece, found ? found->name : piece.name);
    }
    auto copies = entry.hugging_face_copies;
    if (tied && entry.name == "embedding.word_embeddings.weight") {
      copies.push_back(names.tied_output());
    }
    for (const std::string& name : copies) {
      if (const formats::TensorSpec* found = names.find(name)) collector.add_copy(i, found->name);
    }
  }
  return collector.take();
}

bool lacks_prediction_heads(const Table& table, const FolderNames& names) {
  for (const model::ParameterEntry& entry : table) {
    if (!entry.name.starts_with("mtp.")) continue;
    for (const model::ForeignPiece& piece : entry.hugging_face) {
      if (names.find(piece.name)) return false;
    }
  }
  return true;
}

}  // namespace qianli::convert
