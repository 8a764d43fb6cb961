#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/convert/mindspore/mindspore.h"

namespace qianli::convert {
namespace {

constexpr std::array kFamilies = {"llama",   "mistral",   "qwen2",       "internlm",
                                  "mixtral", "qwen2_moe", "deepseek_v2", "deepseek_v3"};

// Parameters that are one tensor of the same shape; names within a layer without its number.
const std::unordered_map<std::string, std::string> kWhole = {
    {"embedding.word_embeddings.weight", "model.tok_embeddings.embedding_weight"},
    {"decoder.final_layernorm.weight", "model.norm_out.weight"},
    {"output_layer.weight", "lm_head.weight"},
    {"input_layernorm.weight", "attention_norm.weight"},
    {"self_attention.linear_proj.weight", "attention.wo.weight"},
    {"self_attention.linear_proj.bias", "attention.wo.bias"},
    {"self_attention.linear_q_proj.weight", "attention.q_proj.weight"},
    {"self_attention.linear_q_down_proj.weight", "attention.q2l_proj.weight"},
    {"self_attention.q_layernorm.weight", "attention.lq_norm.weight"},
    {"self_attention.kv_layernorm.weight", "attention.lkv_norm.weight"},
    {"pre_mlp_layernorm.weight", "ffn_norm.weight"},
    {"mlp.linear_fc2.weight", "feed_forward.w2.weight"},
    {"mlp.router.expert_bias", "feed_forward.routed_experts.router.router.topk_bias"},
    {"mlp.shared_experts.linear_fc2.weight", "feed_forward.shared_experts.w2.weight"},
    {"mlp.shared_experts.gate_weight", "feed_forward.shared_experts_gate.weight"},
};

// The names of one model, parameter by parameter.
class MindFormersNames {
 public:
  MindFormersNames(const model::ModelSpec& spec, const Table& table, const ShapeOf& shape_of)
      : spec_(spec), table_(table), shape_of_(shape_of) {}

  std::vector<ForeignTensor> all() && {
    for (parameter_ = 0; parameter_ < table_.size(); ++parameter_) add_parameter();
    return std::move(tensors_);
  }

 private:
  // Rows [first, first + count) of the parameter at hand.
  struct Rows {
    int64_t first, count;
  };

  const model::ParameterEntry& entry() const { return table_[parameter_]; }
  int64_t columns() const { return matrix_columns(entry()); }
  bool there(const std::string& name) const { return shape_of_ && shape_of_(name); }

  void add_parameter() {
    std::string name = entry().name;
    prefix_.clear();
    if (constexpr std::string_view kLayers = "decoder.layers."; name.starts_with(kLayers)) {
      const size_t dot = name.find('.', kLayers.size());
      prefix_ = "model.layers." + name.substr(kLayers.size(), dot + 1 - kLayers.size());
      name = name.substr(dot + 1);
    }
    if (const auto found = kWhole.find(name); found != kWhole.end()) {
      ForeignTensor& tensor = add(found->second, entry().shape);
      put(tensor, {0, matrix_rows(entry())}, 0);
    } else if (name.starts_with("self_attention.linear_qkv.")) {
      query_key_value(name.substr(name.rfind('.')));
    } else if (name == "mlp.linear_fc1.weight") {
      branches("feed_forward.");
    } else if (name == "mlp.shared_experts.linear_fc1.weight") {
      branches("feed_forward.shared_experts.");
    } else if (name == "mlp.router.weight") {
      ForeignTensor& tensor = add(experts() + "router.dense.weight", entry().shape);
      put(tensor, {0, matrix_rows(entry())}, 0);
    } else if (name == "mlp.experts.linear_fc1.weight") {
      const int64_t width = spec_.moe->ffn_hidden_size;
      stacked(experts() + "ffn.w1.weight", 2 * width, 0, width);
      stacked(experts() + "ffn.w3.weight", 2 * width, width, width);
    } else if (name == "mlp.experts.linear_fc2.weight") {
      stacked(experts() + "ffn.w2.weight", spec_.hidden_size, 0, spec_.hidden_size);
    } else if (spec_.latent_attention) {
      latent(name);
    } else {
      refuse();
    }
  }

  [[noreturn]] void refuse() const {
    throw ConfigError("convert",
                      fmt::format("MindSpore Transformers has no name for {}", entry().name));
  }

  ForeignTensor& add(const std::string& name, std::vector<int64_t> shape) {
    return tensors_.emplace_back(ForeignTensor{.name = prefix_ + name, .shape = std::move(shape)});
  }

  // The rows stand from `foreign_row` on; where `block` is given, blocks of so many rows are
  // `stride` apart.
  void put(ForeignTensor& tensor, Rows rows, int64_t foreign_row, int64_t block = 0,
           int64_t stride = 0) const {
    int64_t height = 1;
    for (const int64_t size : tensor.shape) height *= size;
    tensor.parts.push_back({.parameter = parameter_,
                            .first_row = rows.first,
                            .rows = rows.count,
                            .columns = columns(),
                            .foreign_rows = height / columns(),
                            .foreign_columns = columns(),
                            .foreign_row = foreign_row,
                            .block = block,
                            .stride = stride});
  }

  void slice(const std::string& name, Rows rows) {
    std::vector<int64_t> shape = {rows.count};
    if (entry().shape.size() > 1) shape.push_back(columns());
    put(add(name, std::move(shape)), rows, 0);
  }

  void query_key_value(const std::string& end) {
    const model::LayerSpec layer = spec_.layer(entry().layer);
    const int64_t q = layer.query_size(), kv = layer.key_value_size();
    if (there(prefix_ + "attention.w_qkv" + end))
      return slice("attention.w_qkv" + end, {0, q + 2 * kv});
    slice("attention.wq" + end, {0, q});
    slice("attention.wk" + end, {q, kv});
    slice("attention.wv" + end, {q + kv, kv});
  }

  void branches(const std::string& to) {
    const int64_t rows = entry().shape[0];
    if (there(prefix_ + to + "w_gate_hidden.weight"))
      return slice(to + "w_gate_hidden.weight", {0, rows});
    slice(to + "w1.weight", {0, rows / 2});
    slice(to + "w3.weight", {rows / 2, rows / 2});
  }

  std::string experts() const {
    return spec_.family == "mixtral" ? "feed_forward." : "feed_forward.routed_experts.";
  }

  // Of each expert's `all` rows, those of [first, first + count), all experts in one tensor.
  void stacked(const std::string& name, int64_t all, int64_t first, int64_t count) {
    const int64_t experts = entry().shape[0], width = columns();
    const std::vector<int64_t> plain = {experts, count, width}, swapped = {experts, width, count};
    const auto* shape = shape_of_ ? shape_of_(prefix_ + name) : nullptr;
    const bool transposed = shape && *shape == swapped && plain != swapped;
    ForeignTensor& tensor = add(name, transposed ? swapped : plain);
    for (int64_t e = 0; e < experts; ++e) {
      put(tensor, {e * all + first, count}, e * count);
      if (!transposed) continue;
      Part& part = tensor.parts.back();
      part.offset = e * count * width;
      part.foreign_rows = width;
      part.foreign_columns = count;
      part.transposed = true;
      part.foreign_row = 0;
    }
  }

  void latent(const std::string& name) {
    const model::LatentAttention& sizes = *spec_.latent_attention;
    const int64_t nope = sizes.qk_nope_head_dim, rope = sizes.qk_rope_head_dim;
    const bool apart = spec_.family == "deepseek_v3";
    if (name == "self_attention.linear_q_up_proj.weight") {
      if (!apart) return slice("attention.l2q_proj.weight", {0, entry().shape[0]});
      heads("attention.l2q_nope_proj.weight", nope + rope, 0, nope);
      rotary_heads("attention.l2q_pe_proj.weight", nope + rope, nope, rope);
    } else if (name == "self_attention.linear_kv_up_proj.weight") {
      if (!apart) return slice("attention.lkv2kv.weight", {0, entry().shape[0]});
      heads("attention.lkv2kv_k_nope.weight", nope + sizes.v_head_dim, 0, nope);
      heads("attention.lkv2kv_v.weight", nope + sizes.v_head_dim, nope, sizes.v_head_dim);
    } else if (name == "self_attention.linear_kv_down_proj.weight") {
      if (!apart) return slice("attention.kv2l.weight", {0, entry().shape[0]});
      slice("attention.kv2l_latent_kv.weight", {0, sizes.kv_lora_rank});
      ForeignTensor& keys = add("attention.kv2l_k_pe.weight", {rope, columns()});
      put_rotary(keys, sizes.kv_lora_rank, rope, 0);
    } else {
      refuse();
    }
  }

  // Of every head's `all` rows, those of [first, first + count).
  void heads(const std::string& name, int64_t all, int64_t first, int64_t count) {
    const int64_t heads = spec_.num_attention_heads;
    ForeignTensor& tensor = add(name, {heads * count, columns()});
    for (int64_t head = 0; head < heads; ++head)
      put(tensor, {head * all + first, count}, head * count);
  }

  void rotary_heads(const std::string& name, int64_t all, int64_t first, int64_t count) {
    const int64_t heads = spec_.num_attention_heads;
    ForeignTensor& tensor = add(name, {heads * count, columns()});
    for (int64_t head = 0; head < heads; ++head)
      put_rotary(tensor, head * all + first, count, head * count);
  }

  // Rows whose rotary pairs are neighbours here, and half of the rows apart there.
  void put_rotary(ForeignTensor& tensor, int64_t first, int64_t count, int64_t foreign_row) const {
    for (int64_t pair = 0; pair < count / 2; ++pair)
      put(tensor, {first + 2 * pair, 2}, foreign_row + pair, 1, count / 2);
  }

  const model::ModelSpec& spec_;
  const Table& table_;
  const ShapeOf& shape_of_;
  size_t parameter_ = 0;
  std::string prefix_;
  std::vector<ForeignTensor> tensors_;
};

}  // namespace

std::string mindformers_lacks(const model::ModelSpec& spec) {
  if (std::ranges::find(kFamilies, spec.family) == kFamilies.end())
    return fmt::format("the family {}", spec.family);
  if (spec.mtp.num_layers > 0) return "the norm behind multi-token prediction";
  if (spec.mlp_bias || spec.output_bias) return "biases of the MLP or the output layer";
  return {};
}

std::vector<ForeignTensor> mindformers_tensors(const model::ModelSpec& spec, const Table& table,
                                               const ShapeOf& shape_of) {
  return MindFormersNames(spec, table, shape_of).all();
}

}  // namespace qianli::convert
