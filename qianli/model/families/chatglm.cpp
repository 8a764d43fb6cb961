#include <cmath>

#include "qianli/model/families/decoder.h"

namespace qianli::model {

namespace {

constexpr double kBase = 10000.0;

// The ratio whose product with the base is exactly `base`.
double ratio_of(double base) {
  const double near = base / kBase;
  for (const double ratio : {near, std::nextafter(near, 0.0), std::nextafter(near, 1e300)}) {
    if (ratio * kBase == base) return ratio;
  }
  return near;
}

void read(const ConfigReader& config, ModelSpec& spec) {
  spec.num_query_groups = config.flag("multi_query_attention", false)
                              ? config.integer("multi_query_group_num", 1)
                              : spec.num_attention_heads;
  spec.rope.base = kBase * config.number("rope_ratio", 1.0);
  spec.attention_out_bias = spec.mlp_bias = config.flag("add_bias_linear", false);
  spec.qkv_bias = config.flag("add_qkv_bias", false) || spec.mlp_bias;
  read_tokens(config, std::nullopt, std::nullopt, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["multi_query_attention"] = true;
  config["multi_query_group_num"] = spec.num_query_groups;
  config["rope_ratio"] = ratio_of(spec.rope.base);
  config["original_rope"] = true;
  config["add_bias_linear"] = spec.mlp_bias;
  config["add_qkv_bias"] = spec.qkv_bias;
  config["rmsnorm"] = true;
  config["post_layer_norm"] = true;
  config["apply_residual_connection_post_layernorm"] = false;
  write_tokens(spec, config);
}

ForeignNames names() {
  return {
      .optional_prefix = "transformer.",
      .embedding = "transformer.embedding.word_embeddings",
      .layer = "transformer.encoder.layers.{l}.",
      .input_norm = "input_layernorm",
      .qkv = {"self_attention.query_key_value"},
      .attention_out = "self_attention.dense",
      .mlp_norm = "post_attention_layernorm",
      .mlp_in = {"mlp.dense_h_to_4h"},
      .mlp_out = "mlp.dense_4h_to_h",
      .final_norm = "transformer.encoder.final_layernorm",
      .output = "transformer.output_layer",
  };
}

}  // namespace

const Family& chatglm_family() {
  static const Family family{
      .model_type = "chatglm",
      .architecture = "ChatGLMModel",
      .traits = {.family = "chatglm", .rope = {.fraction = 0.5, .interleaved = true}},
      .names = names(),
      .keys = {{"num_layers", "num_layers"},
               {"hidden_size", "hidden_size"},
               {"ffn_hidden_size", "ffn_hidden_size"},
               {"num_attention_heads", "num_attention_heads"},
               {"kv_channels", "head_dim", 128},
               {"padded_vocab_size", "vocab_size"},
               {"seq_length", "max_position_embeddings", 2048},
               {"layernorm_epsilon", "norm_eps", 1e-5},
               {"tie_word_embeddings", "tie_word_embeddings", false},
               {"initializer_range", "init_std", 0.02}},
      .guards = {{"rmsnorm", {true}},
                 {"post_layer_norm", {true}},
                 {"apply_residual_connection_post_layernorm", {false}},
                 {"pre_seq_len", {}},
                 {"quantization_bit", {0}},
                 {"original_rope", {true}}},
      .read = read,
      .write = write,
      .silent = {"apply_query_key_layer_scaling", "attention_softmax_in_fp32",
                 "bias_dropout_fusion", "classifier_dropout", "fp32_residual_connection",
                 "interleaved_qkv", "prefix_projection", "vocab_size"},
  };
  return family;
}

}  // namespace qianli::model
