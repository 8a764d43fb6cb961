#include "qianli/model/families/decoder.h"
#include "qianli/model/families/families.h"

namespace qianli::model {
namespace {

constexpr int64_t kEndOfText = 50256;

void read(const ConfigReader& config, ModelSpec& spec) {
  spec.num_layers = config.integer("n_layer");
  spec.hidden_size = config.integer("n_embd");
  spec.num_attention_heads = config.integer("n_head");
  if (spec.num_attention_heads < 1 || spec.hidden_size % spec.num_attention_heads != 0) {
    config.fail("n_head", "a divisor of n_embd");
  }
  spec.num_query_groups = spec.num_attention_heads;
  spec.head_dim = spec.hidden_size / spec.num_attention_heads;
  const auto inner = config.optional_integer("n_inner");
  // Beyond the limit of any size the product is refused all the same, without overflowing.
  if (!inner && spec.hidden_size > INT32_MAX) config.fail("n_embd", "a size below 2^31");
  spec.ffn_hidden_size = inner ? *inner : 4 * spec.hidden_size;
  spec.vocab_size = config.integer("vocab_size");
  spec.max_position_embeddings = config.integer("n_positions", 1024);
  spec.norm_eps = config.number("layer_norm_epsilon", 1e-5);
  spec.activation = read_activation(config, "activation_function", "gelu_new");
  spec.tie_word_embeddings = config.flag("tie_word_embeddings", true);
  spec.init_std = config.number("initializer_range", 0.02);
  read_tokens(config, kEndOfText, kEndOfText, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["n_embd"] = spec.hidden_size;
  config["n_layer"] = spec.num_layers;
  config["n_head"] = spec.num_attention_heads;
  config["n_inner"] = spec.ffn_hidden_size;
  config["n_positions"] = spec.max_position_embeddings;
  config["n_ctx"] = spec.max_position_embeddings;
  config["vocab_size"] = spec.vocab_size;
  config["activation_function"] = activation_word(spec.activation, "gelu_new");
  config["layer_norm_epsilon"] = spec.norm_eps;
  // transformers drops out 0.1 while training unless told otherwise; this program never does.
  for (const char* key : {"attn_pdrop", "embd_pdrop", "resid_pdrop"}) config[key] = 0.0;
  config["tie_word_embeddings"] = spec.tie_word_embeddings;
  config["initializer_range"] = spec.init_std;
  write_tokens(spec, config);
}

ForeignNames names() {
  return {
      .optional_prefix = "transformer.",
      .embedding = "transformer.wte",
      .position_embedding = "transformer.wpe",
      .layer = "transformer.h.{}.",
      .input_norm = "ln_1",
      .qkv = {"attn.c_attn"},
      .attention_out = "attn.c_proj",
      .mlp_norm = "ln_2",
      .mlp_in = {"mlp.c_fc"},
      .mlp_out = "mlp.c_proj",
      .final_norm = "transformer.ln_f",
      .output = "lm_head",
      .input_major = true,
  };
}

}  // namespace

const Family& gpt2_family() {
  static const Family family{
      .model_type = "gpt2",
      .architecture = "GPT2LMHeadModel",
      .traits = {.family = "gpt2",
                 .norm = NormKind::kLayerNorm,
                 .norm_eps = 1e-5,
                 .norm_bias = true,
                 .position = PositionKind::kLearned,
                 .gated_mlp = false,
                 .activation = Activation::kGeluTanh,
                 .qkv_bias = true,
                 .attention_out_bias = true,
                 .mlp_bias = true,
                 .tie_word_embeddings = true},
      .names = names(),
      .guards = {{"scale_attn_weights", {true}},
                 {"scale_attn_by_inverse_layer_idx", {false}},
                 {"reorder_and_upcast_attn", {false}}},
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
