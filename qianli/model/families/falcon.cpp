#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

int64_t four_times_hidden(const ModelSpec& spec) {
  return spec.hidden_size > INT32_MAX ? INT64_MAX : 4 * spec.hidden_size;
}

void read(const ConfigReader& config, ModelSpec& spec) {
  const bool grouped = config.flag("new_decoder_architecture", false);
  const bool one_key = config.flag("multi_query", true);
  const int64_t groups = config.integer("num_kv_heads", spec.num_attention_heads);
  spec.num_query_groups = grouped ? groups : one_key ? 1 : spec.num_attention_heads;
  const int64_t norms = config.integer("num_ln_in_parallel_attn", grouped ? 2 : 1);
  if (norms != 1 && norms != 2) config.fail("num_ln_in_parallel_attn", "1 or 2");
  spec.norm_placement =
      grouped && norms == 2 ? NormPlacement::kParallelTwo : NormPlacement::kParallel;
  if (!config.flag("parallel_attn", true) && !grouped) {
    config.fail("parallel_attn", "true",
                "Falcons with one branch after the other are not followed");
  }
  spec.head_dim = hidden_by_heads(spec);
  spec.attention_out_bias = spec.mlp_bias = spec.qkv_bias;
  spec.activation = read_activation(config, "activation", "gelu");
  read_rope(config, {}, spec);
  read_tokens(config, 11, 11, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  const bool two = spec.norm_placement == NormPlacement::kParallelTwo;
  const bool grouped =
      two || (spec.num_query_groups > 1 && spec.num_query_groups < spec.num_attention_heads);
  config["new_decoder_architecture"] = grouped;
  if (grouped) config["num_ln_in_parallel_attn"] = two ? 2 : 1;
  config["num_kv_heads"] = spec.num_query_groups;
  config["multi_query"] = !grouped && spec.num_query_groups == 1;
  config["parallel_attn"] = true;
  config["alibi"] = false;
  config["activation"] = activation_word(spec.activation);
  write_rope(spec, config);
  write_tokens(spec, config);
}

ForeignNames names() {
  return {
      .optional_prefix = "transformer.",
      .embedding = "transformer.word_embeddings",
      .layer = "transformer.h.{l}.",
      .input_norm = "input_layernorm",
      .qkv = {"self_attention.query_key_value"},
      .qkv_order = QkvOrder::kByGroup,
      .attention_out = "self_attention.dense",
      .mlp_norm = "ln_mlp",
      .mlp_in = {"mlp.dense_h_to_4h"},
      .mlp_out = "mlp.dense_4h_to_h",
      .final_norm = "transformer.ln_f",
      .output = "lm_head",
  };
}

void adapt_names(const ModelSpec& spec, ForeignNames& names) {
  if (spec.norm_placement == NormPlacement::kParallelTwo) names.input_norm = "ln_attn";
}

}  // namespace

const Family& falcon_family() {
  static const Family family{
      .model_type = "falcon",
      .architecture = "FalconForCausalLM",
      .traits = {.family = "falcon",
                 .norm = NormKind::kLayerNorm,
                 .norm_placement = NormPlacement::kParallel,
                 .norm_bias = true,
                 .gated_mlp = false,
                 .activation = Activation::kGelu,
                 .tie_word_embeddings = true},
      .names = names(),
      .keys = {{"hidden_size", "hidden_size"},
               {"num_hidden_layers", "num_layers"},
               {"num_attention_heads", "num_attention_heads"},
               {"ffn_hidden_size", "ffn_hidden_size", four_times_hidden},
               {"vocab_size", "vocab_size"},
               {"max_position_embeddings", "max_position_embeddings", 2048},
               {"layer_norm_epsilon", "norm_eps", 1e-5},
               {"bias", "qkv_bias", false},
               {"tie_word_embeddings", "tie_word_embeddings", true},
               {"initializer_range", "init_std", 0.02}},
      .guards = {{"alibi", {false}}},
      .read = read,
      .write = write,
      .adapt_names = adapt_names,
      .silent = {"apply_residual_connection_post_layernorm"},
  };
  return family;
}

}  // namespace qianli::model
