#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

int64_t either(const ConfigReader& config, const char* key, const char* other) {
  return config.has(other) ? config.integer(other) : config.integer(key);
}

// Files of different sizes use different words.
void read(const ConfigReader& config, ModelSpec& spec) {
  spec.hidden_size = either(config, "hidden_size", "n_embed");
  spec.num_layers = either(config, "n_layer", "num_hidden_layers");
  spec.num_attention_heads = either(config, "n_head", "num_attention_heads");
  spec.num_query_groups = spec.num_attention_heads;
  spec.head_dim = hidden_by_heads(spec);
  spec.ffn_hidden_size = spec.hidden_size > INT32_MAX ? INT64_MAX : 4 * spec.hidden_size;
  read_tokens(config, 1, 2, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_size"] = spec.hidden_size;
  config["n_layer"] = spec.num_layers;
  config["n_head"] = spec.num_attention_heads;
  write_tokens(spec, config);
}

ForeignNames names() {
  return {
      .optional_prefix = "transformer.",
      .embedding = "transformer.word_embeddings",
      .embedding_norm = "transformer.word_embeddings_layernorm",
      .layer = "transformer.h.{l}.",
      .input_norm = "input_layernorm",
      .qkv = {"self_attention.query_key_value"},
      .qkv_order = QkvOrder::kByGroup,
      .attention_out = "self_attention.dense",
      .mlp_norm = "post_attention_layernorm",
      .mlp_in = {"mlp.dense_h_to_4h"},
      .mlp_out = "mlp.dense_4h_to_h",
      .final_norm = "transformer.ln_f",
      .output = "lm_head",
  };
}

}  // namespace

const Family& bloom_family() {
  static const Family family{
      .model_type = "bloom",
      .architecture = "BloomForCausalLM",
      .traits = {.family = "bloom",
                 .norm = NormKind::kLayerNorm,
                 .norm_bias = true,
                 .embedding_norm = true,
                 .position = PositionKind::kAlibi,
                 .gated_mlp = false,
                 .activation = Activation::kGeluTanh,
                 .qkv_bias = true,
                 .attention_out_bias = true,
                 .mlp_bias = true,
                 .tie_word_embeddings = true},
      .names = names(),
      .keys = {{"vocab_size", "vocab_size"},
               {"seq_length", "max_position_embeddings", 2048},
               {"layer_norm_epsilon", "norm_eps", 1e-5},
               {"tie_word_embeddings", "tie_word_embeddings", true},
               {"initializer_range", "init_std", 0.02}},
      .others = {{"hidden_size", "hidden_size"},
                 {"n_layer", "num_layers"},
                 {"n_head", "num_attention_heads"}},
      .guards = {{"apply_residual_connection_post_layernorm", {false}}},
      .read = read,
      .write = write,
      .silent = {"attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion",
                 "offset_alibi", "skip_bias_add", "skip_bias_add_qkv", "slow_but_exact", "n_inner",
                 "unk_token_id"},
  };
  return family;
}

}  // namespace qianli::model
