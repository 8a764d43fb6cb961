#include "qianli/model/parameter_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/base/random.h"
#include "qianli/model/family.h"

namespace qianli::model {
namespace {

// Appends entries of one model; `layer_` is that being written, -1 outside the layers.
class TableWriter {
 public:
  TableWriter(const ModelSpec& spec, std::vector<ParameterEntry>& table)
      : spec_(spec), names_(find_family(spec.family).names), table_(table) {}

  void embeddings();
  void layer(int64_t index);
  void head();

 private:
  struct Part {
    std::string foreign;  // without ".weight"
    int64_t rows;
  };

  std::string own(const std::string& name) const {
    return layer_ < 0 ? name : fmt::format("decoder.layers.{}.{}", layer_, name);
  }
  std::string foreign(const std::string& name) const {
    if (name.empty() || layer_ < 0) return name;
    return fmt::format(fmt::runtime(names_.layer), layer_) + name;
  }

  ParameterEntry& add(const std::string& name, std::vector<int64_t> shape, Init init, Cut cut,
                      int axis, const std::vector<Part>& parts, const std::string& suffix,
                      bool transposed);
  void norm(const std::string& name, const std::string& foreign_name);
  void head_norm(const std::string& name, const std::string& foreign_name);
  // A matrix [sum of rows, columns], its rows from `parts`, and its bias.
  void linear(const std::string& name, const std::vector<Part>& parts, int64_t columns, bool bias,
              Init init, int cut_axis);
  void matrix(const std::string& name, const std::string& foreign_name, int64_t rows, Cut cut);

  std::vector<Part> qkv_parts() const;
  std::vector<Part> mlp_parts() const;
  double std_of(Init init) const;

  const ModelSpec& spec_;
  const ForeignNames& names_;
  std::vector<ParameterEntry>& table_;
  int64_t layer_ = -1;
};

// Outputs of residual branches start smaller, so that their sum over 2 L branches keeps its
// variance (GPT-2; Megatron-LM scaled_init_method_normal).
double TableWriter::std_of(Init init) const {
  if (init == Init::kNormal) return spec_.init_std;
  if (init == Init::kNormalScaledByDepth) {
    return spec_.init_std / std::sqrt(2.0 * static_cast<double>(spec_.num_layers));
  }
  return 0.0;
}

ParameterEntry& TableWriter::add(const std::string& name, std::vector<int64_t> shape, Init init,
                                 Cut cut, int axis, const std::vector<Part>& parts,
                                 const std::string& suffix, bool transposed) {
  ParameterEntry entry;
  entry.name = own(name) + suffix;
  entry.shape = std::move(shape);
  entry.init = init;
  entry.init_std = std_of(init);
  entry.cut = cut;
  entry.cut_axis = axis;
  entry.layer = layer_;
  entry.weight_decay = entry.shape.size() > 1;
  int64_t row = 0;
  for (const Part& part : parts) {
    if (part.foreign.empty()) continue;  // the family has no such tensor
    entry.hugging_face.push_back({.name = foreign(part.foreign) + suffix,
                                  .first_row = row,
                                  .rows = part.rows,
                                  .transposed = transposed});
    row += part.rows;
  }
  return table_.emplace_back(std::move(entry));
}

void TableWriter::norm(const std::string& name, const std::string& foreign_name) {
  const int64_t h = spec_.hidden_size;
  add(name, {h}, Init::kOnes, Cut::kNone, 0, {{foreign_name, h}}, ".weight", false);
  if (spec_.norm_bias)
    add(name, {h}, Init::kZeros, Cut::kNone, 0, {{foreign_name, h}}, ".bias", false);
}

void TableWriter::head_norm(const std::string& name, const std::string& foreign_name) {
  const int64_t d = spec_.head_dim;
  add(name, {d}, Init::kOnes, Cut::kNone, 0, {{foreign_name, d}}, ".weight", false);
}

void TableWriter::linear(const std::string& name, const std::vector<Part>& parts, int64_t columns,
                         bool bias, Init init, int cut_axis) {
  int64_t rows = 0;
  for (const Part& part : parts) rows += part.rows;
  add(name, {rows, columns}, init, Cut::kTensor, cut_axis, parts, ".weight", names_.input_major);
  // Cut by columns, every rank holds a partial sum of all rows: the bias is added once, after.
  const Cut bias_cut = cut_axis == 0 ? Cut::kTensor : Cut::kNone;
  if (bias) add(name, {rows}, Init::kZeros, bias_cut, 0, parts, ".bias", false);
}

void TableWriter::matrix(const std::string& name, const std::string& foreign_name, int64_t rows,
                         Cut cut) {
  add(name, {rows, spec_.hidden_size}, Init::kNormal, cut, 0, {{foreign_name, rows}}, ".weight",
      false);
}

std::vector<TableWriter::Part> TableWriter::qkv_parts() const {
  const int64_t q = spec_.query_size(), kv = spec_.key_value_size();
  if (names_.qkv.size() == 1) return {{names_.qkv[0], q + 2 * kv}};
  return {{names_.qkv[0], q}, {names_.qkv[1], kv}, {names_.qkv[2], kv}};
}

std::vector<TableWriter::Part> TableWriter::mlp_parts() const {
  const int64_t f = spec_.ffn_hidden_size;
  const bool named_gate = names_.mlp_in.size() == 2;
  if (!spec_.gated_mlp) return {{names_.mlp_in.back(), f}};
  if (!named_gate) return {{"", 2 * f}};
  return {{names_.mlp_in[0], f}, {names_.mlp_in[1], f}};
}

void TableWriter::embeddings() {
  matrix("embedding.word_embeddings", names_.embedding, spec_.vocab_size, Cut::kTensor);
  if (spec_.position == PositionKind::kLearned) {
    matrix("embedding.position_embeddings", names_.position_embedding,
           spec_.max_position_embeddings, Cut::kNone);
  }
}

void TableWriter::layer(int64_t index) {
  layer_ = index;
  const int64_t h = spec_.hidden_size;
  norm("input_layernorm", names_.input_norm);
  linear("self_attention.linear_qkv", qkv_parts(), h, spec_.qkv_bias, Init::kNormal, 0);
  if (spec_.qk_norm) {
    head_norm("self_attention.q_layernorm", names_.query_norm);
    head_norm("self_attention.k_layernorm", names_.key_norm);
  }
  linear("self_attention.linear_proj", {{names_.attention_out, h}}, spec_.query_size(),
         spec_.attention_out_bias, Init::kNormalScaledByDepth, 1);
  norm("pre_mlp_layernorm", names_.mlp_norm);
  linear("mlp.linear_fc1", mlp_parts(), h, spec_.mlp_bias, Init::kNormal, 0);
  linear("mlp.linear_fc2", {{names_.mlp_out, h}}, spec_.ffn_hidden_size, spec_.mlp_bias,
         Init::kNormalScaledByDepth, 1);
  layer_ = -1;
}

void TableWriter::head() {
  norm("decoder.final_layernorm", names_.final_norm);
  if (!spec_.tie_word_embeddings)
    matrix("output_layer", names_.output, spec_.vocab_size, Cut::kTensor);
}

int64_t total_elements(const std::vector<ParameterEntry>& table) {
  int64_t total = 0;
  for (const ParameterEntry& entry : table) total += entry.elements();
  return total;
}

}  // namespace

int64_t ParameterEntry::elements() const {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

std::vector<ParameterEntry> parameter_table(const ModelSpec& spec) {
  spec.validate();
  std::vector<ParameterEntry> table;
  TableWriter writer(spec, table);
  writer.embeddings();
  for (int64_t l = 0; l < spec.num_layers; ++l) writer.layer(l);
  writer.head();
  return table;
}

int64_t parameter_count(const ModelSpec& spec) {
  spec.validate();
  std::vector<ParameterEntry> outside, layer;  // all layers are alike
  TableWriter(spec, layer).layer(0);
  TableWriter writer(spec, outside);
  writer.embeddings();
  writer.head();
  return total_elements(outside) + spec.num_layers * total_elements(layer);
}

std::string optional_foreign_prefix(const ModelSpec& spec) {
  return find_family(spec.family).names.optional_prefix;
}

void initial_values(const ParameterEntry& entry, uint64_t seed, int64_t first,
                    std::span<float> out) {
  const auto count = static_cast<int64_t>(out.size());
  if (first < 0 || first > entry.elements() || count > entry.elements() - first) {
    throw std::out_of_range(fmt::format("initial_values: [{}, {}) of {} elements of {}", first,
                                        first + count, entry.elements(), entry.name));
  }
  switch (entry.init) {
    case Init::kZeros:
      std::ranges::fill(out, 0.0f);
      return;
    case Init::kOnes:
      std::ranges::fill(out, 1.0f);
      return;
    case Init::kNormal:
    case Init::kNormalScaledByDepth:
      fill_normal(random_key(seed, entry.name), static_cast<uint64_t>(first), out.size(), 0.0,
                  entry.init_std, out.data());
      return;
  }
}

}  // namespace qianli::model
