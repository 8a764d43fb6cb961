#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

constexpr int64_t kEndOfText = 50256;

int64_t four_times_hidden(const ModelSpec& spec) {
  return spec.hidden_size > INT32_MAX ? INT64_MAX : 4 * spec.hidden_size;
}

void read(const ConfigReader& config, ModelSpec& spec) {
  if (spec.num_attention_heads < 1 || spec.hidden_size % spec.num_attention_heads != 0) {
    config.fail("n_head", "a divisor of n_embd");
  }
  spec.num_query_groups = config.flag("multi_query", true) ? 1 : spec.num_attention_heads;
  spec.head_dim = spec.hidden_size / spec.num_attention_heads;
  spec.activation = read_activation(config, "activation_function", "gelu_pytorch_tanh");
  read_tokens(config, kEndOfText, kEndOfText, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["multi_query"] = spec.num_query_groups == 1;
  config["activation_function"] = activation_word(spec.activation);
  for (const char* key : {"attn_pdrop", "embd_pdrop", "resid_pdrop"}) config[key] = 0.0;
  write_tokens(spec, config);
}

ForeignNames names() {
  return {
      .optional_prefix = "transformer.",
      .embedding = "transformer.wte",
      .position_embedding = "transformer.wpe",
      .layer = "transformer.h.{l}.",
      .input_norm = "ln_1",
      .qkv = {"attn.c_attn"},
      .qkv_order = QkvOrder::kByGroup,
      .attention_out = "attn.c_proj",
      .mlp_norm = "ln_2",
      .mlp_in = {"mlp.c_fc"},
      .mlp_out = "mlp.c_proj",
      .final_norm = "transformer.ln_f",
      .output = "lm_head",
  };
}

}  // namespace

const Family& gpt_bigcode_family() {
  static const Family family{
      .model_type = "gpt_bigcode",
      .architecture = "GPTBigCodeForCausalLM",
      .traits = {.family = "gpt_bigcode",
                 .norm = NormKind::kLayerNorm,
                 .norm_bias = true,
                 .position = PositionKind::kLearned,
                 .gated_mlp = false,
                 .activation = Activation::kGeluTanh,
                 .qkv_bias = true,
                 .attention_out_bias = true,
                 .mlp_bias = true,
                 .tie_word_embeddings = true},
      .names = names(),
      .keys = {{"n_embd", "hidden_size"},
               {"n_layer", "num_layers"},
               {"n_head", "num_attention_heads"},
               {"n_inner", "ffn_hidden_size", four_times_hidden},
               {"n_positions", "max_position_embeddings", 1024},
               {"vocab_size", "vocab_size"},
               {"layer_norm_epsilon", "norm_eps", 1e-5},
               {"tie_word_embeddings", "tie_word_embeddings", true},
               {"initializer_range", "init_std", 0.02}},
      .guards = {{"scale_attn_weights", {true}}},
      .read = read,
      .write = write,
      .silent = {"num_key_value_heads", "attention_softmax_in_fp32",
                 "scale_attention_softmax_in_fp32", "inference_runner", "validate_runner_input",
                 "pad_key_length", "n_head_groups", "max_batch_size", "max_sequence_length",
                 "pre_allocate_kv_cache"},
  };
  return family;
}

}  // namespace qianli::model
