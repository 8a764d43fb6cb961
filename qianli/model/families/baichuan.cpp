#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

// The 13B models have ALiBi and no max_position_embeddings; the second generation speaks of its
// z_loss and normalises the rows of the output layer.
void read(const ConfigReader& config, ModelSpec& spec) {
  spec.activation = read_activation(config, "hidden_act", "silu");
  spec.num_query_groups = spec.num_attention_heads;
  spec.head_dim = hidden_by_heads(spec);
  if (config.has("max_position_embeddings")) {
    spec.max_position_embeddings = config.integer("max_position_embeddings");
    config.raw("model_max_length");
    read_rope(config, {}, spec);
  } else {
    spec.position = PositionKind::kAlibi;
    spec.max_position_embeddings = config.integer("model_max_length", 4096);
  }
  spec.normalized_output = config.has("z_loss_weight");
  if (config.number("z_loss_weight", 0) != 0) config.fail("z_loss_weight", "0");
  read_tokens(config, 1, 2, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_act"] = activation_word(spec.activation);
  if (spec.position == PositionKind::kRotary) {
    config["max_position_embeddings"] = spec.max_position_embeddings;
    write_rope(spec, config);
  } else {
    config["model_max_length"] = spec.max_position_embeddings;
  }
  if (spec.normalized_output) config["z_loss_weight"] = 0;
  write_tokens(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.qkv = {"self_attn.W_pack"};
  return names;
}

}  // namespace

const Family& baichuan_family() {
  static const Family family{
      .model_type = "baichuan",
      .architecture = "BaichuanForCausalLM",
      .traits = {.family = "baichuan", .norm_eps = 1e-6},
      .names = names(),
      .keys = {{"hidden_size", "hidden_size"},
               {"intermediate_size", "ffn_hidden_size"},
               {"num_hidden_layers", "num_layers"},
               {"num_attention_heads", "num_attention_heads"},
               {"vocab_size", "vocab_size"},
               {"rms_norm_eps", "norm_eps", 1e-6},
               {"tie_word_embeddings", "tie_word_embeddings", false},
               {"initializer_range", "init_std", 0.02}},
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
