#include "qianli/base/log.h"
#include "qianli/model/families/decoder.h"

namespace qianli::model {

namespace {

// The file counts both branches of the MLP.
void read(const ConfigReader& config, ModelSpec& spec) {
  const int64_t both = config.integer("intermediate_size");
  if (both % 2 != 0) config.fail("intermediate_size", "an even number (both branches)");
  spec.ffn_hidden_size = both / 2;
  spec.num_query_groups = spec.num_attention_heads;
  spec.rope.base = config.number("rotary_emb_base", 10000.0);
  read_tokens(config, std::nullopt, std::nullopt, spec);
  const bool longer = config.flag("use_dynamic_ntk", false) | config.flag("use_logn_attn", false);
  if (longer) {
    log::warn("model",
              "use_dynamic_ntk and use_logn_attn of {} change nothing up to seq_length positions "
              "and are not followed beyond",
              config.source());
  }
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["intermediate_size"] = 2 * spec.ffn_hidden_size;
  config["seq_length"] = spec.max_position_embeddings;
  config["rotary_emb_base"] = spec.rope.base;
  config["rotary_pct"] = 1.0;
  config["no_bias"] = true;
  config["use_dynamic_ntk"] = false;
  config["use_logn_attn"] = false;
  write_tokens(spec, config);
}

ForeignNames names() {
  return {
      .optional_prefix = "transformer.",
      .embedding = "transformer.wte",
      .layer = "transformer.h.{l}.",
      .input_norm = "ln_1",
      .qkv = {"attn.c_attn"},
      .attention_out = "attn.c_proj",
      .mlp_norm = "ln_2",
      .mlp_in = {"mlp.w2", "mlp.w1"},  // gate, up
      .mlp_out = "mlp.c_proj",
      .final_norm = "transformer.ln_f",
      .output = "lm_head",
  };
}

}  // namespace

const Family& qwen_family() {
  static const Family family{
      .model_type = "qwen",
      .architecture = "QWenLMHeadModel",
      .traits = {.family = "qwen", .norm_eps = 1e-6, .qkv_bias = true},
      .names = names(),
      .keys = {{"hidden_size", "hidden_size"},
               {"num_hidden_layers", "num_layers"},
               {"num_attention_heads", "num_attention_heads"},
               {"kv_channels", "head_dim", hidden_by_heads},
               {"vocab_size", "vocab_size"},
               {"max_position_embeddings", "max_position_embeddings", 8192},
               {"layer_norm_epsilon", "norm_eps", 1e-6},
               {"tie_word_embeddings", "tie_word_embeddings", false},
               {"initializer_range", "init_std", 0.02}},
      .guards = {{"no_bias", {true}}, {"scale_attn_weights", {true}}},
      .read = read,
      .write = write,
      .silent = {"attn_dropout_prob", "emb_dropout_prob", "bf16", "fp16", "fp32", "onnx_safe",
                 "seq_length", "softmax_in_fp32", "use_cache_kernel", "use_cache_quantization",
                 "use_flash_attn"},
  };
  return family;
}

}  // namespace qianli::model
