// The rules by which Megatron cuts parameters over ranks.
#include <fmt/core.h>

#include <algorithm>

#include "qianli/convert/megatron/rank.h"

namespace qianli::convert {

const size_t* RankWriter::find(const std::string& parameter) const {
  const auto place = index_.find(parameter);
  return place == index_.end() ? nullptr : &place->second;
}

ForeignTensor& RankWriter::add(const std::string& name, std::vector<int64_t> shape) {
  return tensors_.emplace_back(
      ForeignTensor{.name = key_ + name, .shape = std::move(shape), .file = file_});
}

Part RankWriter::rows_part(size_t parameter, int64_t first, int64_t rows, int64_t foreign_row,
                           int64_t foreign_rows) const {
  const int64_t columns = matrix_columns(table_[parameter]);
  return {.parameter = parameter,
          .first_row = first,
          .rows = rows,
          .columns = columns,
          .foreign_rows = foreign_rows,
          .foreign_columns = columns,
          .foreign_row = foreign_row};
}

void RankWriter::replicated(const std::string& name, const std::string& parameter) {
  const size_t* index = find(parameter);
  if (!index) return;
  const int64_t rows = matrix_rows(table_[*index]);
  add(name, table_[*index].shape).parts = {rows_part(*index, 0, rows, 0, rows)};
}

void RankWriter::norm(const std::string& name, const std::string& parameter) {
  // Fused into the linear behind it, the name ends in an underscore: layer_norm_weight.
  const char* joint = name.ends_with("layer_norm") ? "_" : ".";
  replicated(name + joint + "weight", parameter + ".weight");
  replicated(name + joint + "bias", parameter + ".bias");
}

void RankWriter::cut_rows(const std::string& name, const std::string& parameter) {
  const size_t* index = find(parameter);
  if (!index) return;
  std::vector<int64_t> shape = table_[*index].shape;
  shape[0] /= layout_.tensor;
  add(name, shape).parts = {rows_part(*index, rank_.tensor * shape[0], shape[0], 0, shape[0])};
}

void RankWriter::cut_columns(const std::string& name, const std::string& parameter) {
  const size_t* index = find(parameter);
  if (!index) return;
  std::vector<int64_t> shape = table_[*index].shape;
  shape[1] /= layout_.tensor;
  add(name, shape).parts = {{.parameter = *index,
                             .rows = shape[0],
                             .first_column = rank_.tensor * shape[1],
                             .columns = shape[1],
                             .foreign_rows = shape[0],
                             .foreign_columns = shape[1]}};
}

void RankWriter::cut_branches(const std::string& name, const std::string& parameter,
                              int64_t branch_rows) {
  const size_t* index = find(parameter);
  if (!index) return;
  std::vector<int64_t> shape = table_[*index].shape;
  const int64_t branches = shape[0] / branch_rows, rows = branch_rows / layout_.tensor;
  shape[0] = branches * rows;
  ForeignTensor& tensor = add(name, shape);
  for (int64_t branch = 0; branch < branches; ++branch) {
    tensor.parts.push_back(rows_part(*index, branch * branch_rows + rank_.tensor * rows, rows,
                                     branch * rows, shape[0]));
  }
}

void RankWriter::vocabulary(const std::string& name, const std::string& parameter) {
  const size_t* index = find(parameter);
  if (!index) return;
  std::vector<int64_t> shape = table_[*index].shape;
  const int64_t rows = padded_vocab_size(spec_, layout_) / layout_.tensor;
  const int64_t first = rank_.tensor * rows;
  shape[0] = rows;
  ForeignTensor& tensor = add(name, shape);
  const int64_t real = std::clamp<int64_t>(spec_.vocab_size - first, 0, rows);
  if (real > 0) tensor.parts = {rows_part(*index, first, real, 0, rows)};
}

void RankWriter::query_key_value(const std::string& name, const std::string& parameter) {
  const size_t* index = find(parameter);
  if (!index) return;
  const model::LayerSpec layer = spec_.layer(table_[*index].layer);
  const int64_t dim = layer.head_dim, groups = layer.num_groups / layout_.tensor;
  const bool gated = spec_.attention_gate == model::AttentionGate::kElement;
  if (layer.shares_key_value) return cut_rows(name, parameter);
  const int64_t query = layer.num_heads / layer.num_groups * dim * (gated ? 2 : 1);
  const int64_t group = query + 2 * dim, first = rank_.tensor * groups;
  std::vector<int64_t> shape = table_[*index].shape;
  shape[0] = groups * group;
  ForeignTensor& tensor = add(name, shape);
  int64_t parameter_row = 0, foreign_row = 0, which = 0;
  for (const int64_t size : {query, dim, dim}) {
    Part part =
        rows_part(*index, parameter_row + first * size, groups * size, foreign_row, shape[0]);
    if (layout_.fused_rows == FusedRows::kByGroup) {
      part.block = size;
      part.stride = group;
    } else if (layout_.fused_rows == FusedRows::kApart) {
      part.foreign_row = which * part.rows;
    } else {
      part.foreign_row = which;
      part.block = 1;
      part.stride = 3;
    }
    tensor.parts.push_back(part);
    parameter_row += layer.num_groups * size;
    foreign_row += size;
    ++which;
  }
}

void RankWriter::query_key_value_apart(const std::string& to, const std::string& parameter,
                                       const std::string& end) {
  const size_t* index = find(parameter + end);
  if (!index) return;
  const int64_t key_value = spec_.layer(table_[*index].layer).key_value_size();
  const int64_t query = table_[*index].shape[0] - 2 * key_value;
  int64_t first = 0;
  for (const auto& [name, rows] :
       {std::pair{"q_proj", query}, {"k_proj", key_value}, {"v_proj", key_value}}) {
    std::vector<int64_t> shape = table_[*index].shape;
    shape[0] = rows;
    add(to + name + end, shape).parts = {rows_part(*index, first, rows, 0, rows)};
    first += rows;
  }
}

void RankWriter::expert(const std::string& to, const std::string& from, int64_t local,
                        int64_t global) {
  const int64_t cut = layout_.experts_cut(), share = cut == 1 ? 0 : rank_.tensor;
  const int64_t width = spec_.moe->ffn_hidden_size / cut, branches = spec_.gated_mlp ? 2 : 1;
  const auto name_of = [&](const char* linear, const char* end) {
    return layout_.experts == ExpertStorage::kPerWeight
               ? fmt::format("{}{}.{}{}", to, linear, end, local)
               : fmt::format("{}local_experts.{}.{}.{}", to, local, linear, end);
  };
  const size_t* fc1 = find(from + "linear_fc1.weight");
  const int64_t rows = branches * spec_.moe->ffn_hidden_size;
  ForeignTensor& up = add(name_of("linear_fc1", "weight"), {branches * width, spec_.hidden_size});
  for (int64_t branch = 0; branch < branches; ++branch) {
    up.parts.push_back(
        rows_part(*fc1, global * rows + branch * spec_.moe->ffn_hidden_size + share * width, width,
                  branch * width, branches * width));
  }
  const size_t* fc2 = find(from + "linear_fc2.weight");
  add(name_of("linear_fc2", "weight"), {spec_.hidden_size, width}).parts = {
      {.parameter = *fc2,
       .first_row = global * spec_.hidden_size,
       .rows = spec_.hidden_size,
       .first_column = share * width,
       .columns = width,
       .foreign_rows = spec_.hidden_size,
       .foreign_columns = width}};
  if (!spec_.moe->expert_bias) return;
  const auto bias = [&](const char* linear, int64_t row, int64_t count, int64_t foreign_row,
                        ForeignTensor& tensor) {
    tensor.parts.push_back(rows_part(*find(from + linear + std::string(".bias")), row, count,
                                     foreign_row, tensor.shape[0]));
  };
  ForeignTensor& up_bias = add(name_of("linear_fc1", "bias"), {branches * width});
  for (int64_t branch = 0; branch < branches; ++branch) {
    bias("linear_fc1", global * rows + branch * spec_.moe->ffn_hidden_size + share * width, width,
         branch * width, up_bias);
  }
  ForeignTensor& down_bias = add(name_of("linear_fc2", "bias"), {spec_.hidden_size});
  bias("linear_fc2", global * spec_.hidden_size, spec_.hidden_size, 0, down_bias);
}

void RankWriter::grouped_experts(const std::string& to, const std::string& from, int64_t first,
                                 int64_t count) {
  const int64_t cut = layout_.experts_cut(), share = cut == 1 ? 0 : rank_.tensor;
  const int64_t m = spec_.moe->ffn_hidden_size, width = m / cut, branches = spec_.gated_mlp ? 2 : 1;
  const int64_t h = spec_.hidden_size, wide = branches * width;
  // In memory [experts, h, gate and up], whatever the shape says.
  ForeignTensor& up = add(to + "weight1", {h, count * wide});
  const size_t fc1 = *find(from + "linear_fc1.weight"), fc2 = *find(from + "linear_fc2.weight");
  for (int64_t e = 0; e < count; ++e) {
    for (int64_t branch = 0; branch < branches; ++branch) {
      up.parts.push_back({.parameter = fc1,
                          .first_row = (first + e) * branches * m + branch * m + share * width,
                          .rows = width,
                          .columns = h,
                          .offset = e * h * wide,
                          .foreign_rows = h,
                          .foreign_columns = wide,
                          .transposed = true,
                          .foreign_row = branch * width});
    }
  }
  ForeignTensor& down = add(to + "weight2", {count * width, h});
  for (int64_t e = 0; e < count; ++e) {
    down.parts.push_back({.parameter = fc2,
                          .first_row = (first + e) * h,
                          .rows = h,
                          .first_column = share * width,
                          .columns = width,
                          .offset = e * width * h,
                          .foreign_rows = width,
                          .foreign_columns = h,
                          .transposed = true});
  }
}

}  // namespace qianli::convert
