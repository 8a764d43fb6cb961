// The tensors of one rank of a Megatron checkpoint.
#pragma once

#include <string>
#include <unordered_map>

#include "qianli/convert/foreign_tensor.h"
#include "qianli/convert/megatron/layout.h"

namespace qianli::convert {

class RankWriter {
 public:
  RankWriter(const model::ModelSpec& spec, const Table& table, const MegatronLayout& layout,
             const MegatronRank& rank, size_t file, std::vector<ForeignTensor>& tensors);

  // `key` begins the names: "model.".
  void write(const std::string& key, const plan::ChunkLayers& chunk);

 private:
  void embedding();
  void head(bool with_embedding_copy);
  void multi_token_prediction();
  void layer(const std::string& name, const std::string& parameters);
  // Two layers of ours and their shortcut experts as one layer of MindSpeed's.
  void double_layer(const std::string& name, int64_t first);
  void dense_mlp(const std::string& name, const std::string& parameters);
  void attention(const std::string& to, const std::string& from);
  void latent_attention(const std::string& name, const std::string& parameters);
  void split_latent_projections(const std::string& name, const std::string& parameters);
  void indexer(const std::string& name, const std::string& parameters);
  void gated_delta_net(const std::string& name, const std::string& parameters);
  void mixture(const std::string& name, const std::string& parameters);
  void expert(const std::string& name, const std::string& parameters, int64_t local,
              int64_t global);
  void grouped_experts(const std::string& name, const std::string& parameters, int64_t first,
                       int64_t count);
  void norm(const std::string& name, const std::string& parameter);

  // `parameter` is the whole name in the table; where the model does not have it, nothing is
  // written.
  void replicated(const std::string& name, const std::string& parameter);
  void cut_rows(const std::string& name, const std::string& parameter);
  void cut_columns(const std::string& name, const std::string& parameter);
  // Rows [gate; up] of which a rank has a share of each; a plain cut where there is no gate.
  void cut_branches(const std::string& name, const std::string& parameter, int64_t branch_rows);
  void vocabulary(const std::string& name, const std::string& parameter);
  // Rows q, k, v of the table become groups of queries, a key, a value; one of queries alone is cut
  // as it is.
  void query_key_value(const std::string& name, const std::string& parameter);
  // As q_proj, k_proj and v_proj, on a single tensor rank (MindSpeed's Qwen3-Next).
  void query_key_value_apart(const std::string& to, const std::string& parameter,
                             const std::string& end);

  ForeignTensor& add(const std::string& name, std::vector<int64_t> shape);
  // Rows [first, first + rows) of a parameter as the rows from `foreign_row` on of a matrix
  // `foreign_rows` high.
  Part rows_part(size_t parameter, int64_t first, int64_t rows, int64_t foreign_row,
                 int64_t foreign_rows) const;
  const size_t* find(const std::string& parameter) const;
  bool mindspeed() const { return layout_.names == MegatronNames::kMindSpeed; }
  bool legacy() const { return layout_.names == MegatronNames::kLegacy; }

  const model::ModelSpec& spec_;
  const Table& table_;
  const MegatronLayout& layout_;
  MegatronRank rank_;
  size_t file_;
  std::vector<ForeignTensor>& tensors_;
  std::string key_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace qianli::convert
