// Writes the entries of a parameter table, one part of a model after the other.
#pragma once

#include <string>
#include <vector>

#include "qianli/model/family.h"
#include "qianli/model/parameter_table.h"

namespace qianli::model {

class TableWriter {
 public:
  // Without `foreign` the entries have no names elsewhere: enough to count.
  TableWriter(const ModelSpec& spec, std::vector<ParameterEntry>& table, bool foreign = true);

  void embeddings();
  void layer(int64_t index);
  void head();
  void multi_token_prediction(int64_t index);

 private:
  // Rows of a linear layer from one foreign tensor.
  struct Part {
    std::string foreign;  // without ".weight"
    int64_t rows;
    int64_t foreign_rows = 0;  // of the whole tensor; 0: rows
    int64_t foreign_row = 0;
    int64_t block = 0;
    int64_t stride = 0;
  };
  struct Style {
    Init init = Init::kNormal;
    std::vector<CutSection> cut = {};
    int cut_axis = 0;
    bool weight_decay = false;
    int stream_axis = -1;
  };
  using Cut = std::vector<CutSection>;

  // Names with the places of this layer.
  std::string own(const std::string& name) const { return own_prefix_ + name; }
  std::string foreign(const std::string& name, int64_t expert = 0) const;

  ParameterEntry& add(const std::string& name, std::vector<int64_t> shape, Style style);
  // Appends a piece of `rows` rows behind those that `pieces` has.
  void append(std::vector<ForeignPiece>& pieces, ForeignPiece piece) const;
  // The whole parameter from one tensor of its shape.
  void whole(ParameterEntry& entry, const std::string& foreign_name) const;

  void norm(const std::string& name, const std::string& foreign_name);
  void norm_of(const std::string& name, const std::string& foreign_name, std::vector<int64_t> shape,
               Init init, const Cut& cut = {}, int stream_axis = -1);
  // A matrix [sum of rows, columns], its rows from `parts`, and its bias. Tensor-parallel ranks
  // hold it whole, share its rows (the first linear of a block), or its columns (the last one).
  enum class Shared { kNot, kRows, kColumns };
  void linear(const std::string& name, const std::vector<Part>& parts, int64_t columns, bool bias,
              Init init, Shared shared = Shared::kNot, const Cut& cut = {});
  // The copies of the last entry that the layers of multi-token prediction repeat.
  void copies(const std::string& foreign_name);
  void vocabulary(const std::string& name, const std::string& foreign_name, int64_t rows,
                  const Cut& cut);

  void output_bias();

  void decoder_layer(const LayerSpec& layer);
  void attention(const LayerSpec& layer);
  void query_key_norms(const LayerSpec& layer);
  void latent_attention(const LayerSpec& layer);
  void compressed_attention(const LayerSpec& layer);
  void compressor(const std::string& name, const ForeignNames::Compressor& names,
                  const LayerSpec& layer, int64_t size);
  void hyper_connection(const std::string& name, const ForeignNames::HyperConnection& names,
                        bool mixes);
  void gated_delta_net();
  void mamba2();
  void convolution(const std::string& name, const std::string& foreign_name, const Cut& channels,
                   int64_t kernel, bool bias);
  void mlp();
  void mixture(const std::string& name, bool routes_by_token = false);
  void experts(const std::string& name);
  void experts_one_by_one(ParameterEntry& entry, const std::vector<std::string>& names,
                          int64_t columns, const std::string& suffix) const;
  void stacked_experts(ParameterEntry& entry, std::vector<ForeignPiece>& pieces, bool in,
                       bool bias) const;

  std::vector<Part> qkv_parts(const LayerSpec& layer) const;
  // `per_head` elements for each query head.
  static CutSection query_heads(const LayerSpec& layer, int64_t per_head);
  // Of a gated or plain first linear of this width.
  Cut branches(int64_t width) const;
  std::vector<Part> gated_parts(const std::vector<std::string>& names, int64_t width) const;
  double std_of(Init init) const;

  const ModelSpec& spec_;
  const ForeignNames names_;
  std::vector<ParameterEntry>& table_;
  bool foreign_;
  std::string own_prefix_, foreign_prefix_;  // of the layer at hand
  int64_t layer_ = -1;
  bool within_block_ = false;
  int64_t half_ = 0;
};

// `name` with ".weight" or ".bias" appended, or put in place of a star.
std::string with_suffix(const std::string& name, const std::string& suffix);

}  // namespace qianli::model
