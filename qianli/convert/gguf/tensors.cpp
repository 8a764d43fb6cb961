#include "qianli/convert/gguf/tensors.h"

#include <fmt/core.h>

#include <optional>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/convert/gguf/tensor_names.h"

namespace qianli::convert {
namespace {

using model::ModelSpec;
using model::ParameterEntry;

class Writer {
 public:
  Writer(const ModelSpec& spec, const Table& table, const GgufArchitecture& architecture,
         const std::function<bool(const std::string&)>& has)
      : spec_(spec), table_(table), architecture_(architecture), has_(has) {}

  std::vector<ForeignTensor> tensors() {
    for (index_ = 0; index_ < table_.size(); ++index_) {
      parameter_.emplace(entry());
      place(parameter_->name);
    }
    return std::move(tensors_);
  }

 private:
  const ParameterEntry& entry() const { return table_[index_]; }

  void place(std::string_view name) {
    if (name == "self_attention.linear_qkv") return queries_keys_values();
    if (name == "self_attention.linear_kv_up_proj") return latent_keys_values();
    if (name == "self_attention.in_proj") return delta_net_in();
    if (name == "mlp.linear_fc1") return gate_up("ffn_gate", "ffn_up");
    if (name == "mlp.shared_experts.linear_fc1") return gate_up("ffn_gate_shexp", "ffn_up_shexp");
    if (name == "mlp.experts.linear_fc1") return experts_in();
    if (name == "mlp.experts.linear_fc2") return experts_out();
    if (name == "mlp.shared_experts.gate_weight") {
      return whole("ffn_gate_inp_shexp.weight", std::vector{spec_.hidden_size});
    }
    if (name == "mixer.norm") {
      const auto& [groups, inner] = std::pair(spec_.mamba2->num_groups, spec_.mamba2->inner_size);
      return whole("ssm_norm", std::vector{groups, inner / groups});
    }
    if (name == "mixer.A_log" || name == "mixer.D") {
      const std::vector<int64_t> column{spec_.mamba2->num_heads(), 1};
      return whole(name == "mixer.D" ? "ssm_d" : "ssm_a", column);
    }
    // Of Grok-2, and read alike.
    const bool grok2 = name == "post_mlp_layernorm" && has_ && has_(full("post_ffw_norm"));
    whole(grok2 ? "post_ffw_norm" : gguf_name(*parameter_, spec_, architecture_));
  }

  // A part of the parameter at hand in the tensor of that name; made where it is the first.
  void add(const std::string& tensor, const std::vector<int64_t>& shape, Part part) {
    part.parameter = index_;
    if (part.columns == 0) part.columns = matrix_columns(entry());
    if (part.foreign_columns == 0) part.foreign_columns = part.columns;
    const auto [place, added] = places_.try_emplace(tensor, tensors_.size());
    if (added) tensors_.push_back({.name = tensor, .shape = shape});
    tensors_[place->second].parts.push_back(part);
  }
  std::string full(std::string_view name) const {
    return fmt::format("{}{}{}", parameter_->block, name, parameter_->suffix);
  }

  void whole(std::string_view name, std::vector<int64_t> shape = {}) {
    if (name.empty()) {
      throw ConfigError("convert",
                        fmt::format("expected a model that GGUF's {} has tensors for, got {}",
                                    architecture_.name, entry().name));
    }
    const bool complete = name.ends_with(".weight") || name.ends_with(".bias");
    const int64_t rows = matrix_rows(entry());
    add(complete ? parameter_->block + std::string(name) : full(name),
        shape.empty() ? entry().shape : shape, {.rows = rows, .foreign_rows = rows});
  }

  // Rows [first, first + rows) as a tensor of their own.
  void rows(std::string_view name, int64_t first, int64_t count) {
    auto shape = entry().shape;
    shape[0] = count;
    add(full(name), shape, {.first_row = first, .rows = count, .foreign_rows = count});
  }

  // The rows (2 i, 2 i + 1) of a head are its rows i and i + d/2 here.
  void paired_rows(std::string_view name, int64_t first, int64_t count) {
    const int64_t d = spec_.head_dim, half = d / 2;
    auto shape = entry().shape;
    shape[0] = count;
    for (int64_t row = 0; row < count; row += half) {
      add(full(name), shape,
          {.first_row = first + row,
           .rows = half,
           .foreign_rows = count,
           .foreign_row = row / d * d + (row % d == 0 ? 0 : 1),
           .block = 1,
           .stride = 2});
    }
  }

  bool fused(std::string_view name, bool usual) const { return has_ ? has_(full(name)) : usual; }

  void queries_keys_values() {
    const int64_t kv = spec_.layer(entry().layer).key_value_size();
    const int64_t queries = entry().shape[0] - 2 * kv;
    if (fused("attn_qkv", architecture_.fused_qkv)) return whole("attn_qkv");
    if (architecture_.paired_rows) {  // Baichuan's with ALiBi, too
      paired_rows("attn_q", 0, queries);
      paired_rows("attn_k", queries, kv);
    } else {
      rows("attn_q", 0, queries);
      rows("attn_k", queries, kv);
    }
    rows("attn_v", queries + kv, kv);
  }

  void latent_keys_values() {
    if (!architecture_.split_latent || fused("attn_kv_b", false)) return whole("attn_kv_b");
    const model::LatentAttention& mla = *spec_.latent_attention;
    const int64_t a = spec_.num_attention_heads, rank = mla.kv_lora_rank;
    const int64_t keys = mla.qk_nope_head_dim, values = mla.v_head_dim;
    for (int64_t head = 0; head < a; ++head) {
      const int64_t first = head * (keys + values);
      add(full("attn_k_b"), {a, rank, keys},
          {.first_row = first,
           .rows = keys,
           .offset = head * rank * keys,
           .foreign_rows = rank,
           .foreign_columns = keys,
           .transposed = true});
      add(full("attn_v_b"), {a, values, rank},
          {.first_row = first + keys,
           .rows = values,
           .foreign_rows = a * values,
           .foreign_row = head * values});
    }
  }

  // Per key head q, k, its v's, its z's, then per key head its b's and a's: there q, k and v of all
  // heads, z of all heads, and the last as they are.
  void delta_net_in() {
    const model::GatedDeltaNet& net = *spec_.gated_delta_net;
    const int64_t heads = net.num_key_heads, k = net.key_head_dim, h = spec_.hidden_size;
    const int64_t v = net.value_size() / heads, group = 2 * k + 2 * v;
    const int64_t all = 2 * net.key_size() + net.value_size(), gates = 2 * net.num_value_heads;
    const auto part = [&](std::string_view name, int64_t total, int64_t first, int64_t count,
                          int64_t to) {
      add(full(name), {total, h},
          {.first_row = first, .rows = count, .foreign_rows = total, .foreign_row = to});
    };
    if (has_ && has_(full("ssm_in"))) {
      part("ssm_in", heads * group, 0, heads * group, 0);
    } else {
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t first = head * group;
        part("attn_qkv", all, first, k, head * k);
        part("attn_qkv", all, first + k, k, net.key_size() + head * k);
        part("attn_qkv", all, first + 2 * k, v, 2 * net.key_size() + head * v);
        part("attn_gate", net.value_size(), first + 2 * k + v, v, head * v);
      }
    }
    part("ssm_ba", gates, heads * group, gates, 0);
  }

  void gate_up(std::string_view gate, std::string_view up) {
    const int64_t width = entry().shape[0] / 2;
    const bool one = has_ ? !has_(full(gate)) : architecture_.fused_gate && up == "ffn_up";
    if (!spec_.gated_mlp || one) return whole(up);
    rows(gate, 0, width);
    rows(up, width, width);
  }

  // Files from before March 2024 have a tensor for each expert.
  bool expert_by_expert() const { return fused("ffn_down.0", false); }

  // Of each expert's `all` rows, those of [first, first + count).
  void each_expert(std::string_view name, int64_t all, int64_t first, int64_t count) {
    for (int64_t e = 0; e < entry().shape[0]; ++e) {
      add(full(fmt::format("{}.{}", name, e)), {count, matrix_columns(entry())},
          {.first_row = e * all + first, .rows = count, .foreign_rows = count});
    }
  }

  void experts_out() {
    if (!expert_by_expert()) return whole("ffn_down_exps");
    each_expert("ffn_down", spec_.hidden_size, 0, spec_.hidden_size);
  }

  void experts_in() {
    if (expert_by_expert()) {
      const int64_t width = spec_.moe->ffn_hidden_size;
      if (!spec_.gated_mlp) return each_expert("ffn_up", width, 0, width);
      each_expert("ffn_gate", 2 * width, 0, width);
      return each_expert("ffn_up", 2 * width, width, width);
    }
    if (!spec_.gated_mlp) return whole("ffn_up_exps");
    if (has_ && has_(full("ffn_gate_up_exps"))) return whole("ffn_gate_up_exps");
    const int64_t experts = entry().shape[0], width = entry().shape[1] / 2;
    auto shape = entry().shape;
    shape[1] = width;
    for (int64_t e = 0; e < experts; ++e) {
      for (const bool up : {false, true}) {
        add(full(up ? "ffn_up_exps" : "ffn_gate_exps"), shape,
            {.first_row = (2 * e + (up ? 1 : 0)) * width,
             .rows = width,
             .foreign_rows = experts * width,
             .foreign_row = e * width});
      }
    }
  }

  const ModelSpec& spec_;
  const Table& table_;
  const GgufArchitecture& architecture_;
  const std::function<bool(const std::string&)>& has_;
  std::vector<ForeignTensor> tensors_;
  std::unordered_map<std::string, size_t> places_;
  size_t index_ = 0;
  std::optional<GgufParameter> parameter_;
};

}  // namespace

std::vector<ForeignTensor> gguf_tensors(const ModelSpec& spec, const Table& table,
                                        const GgufArchitecture& architecture,
                                        const std::function<bool(const std::string&)>& has) {
  return Writer(spec, table, architecture, has).tensors();
}

}  // namespace qianli::convert
