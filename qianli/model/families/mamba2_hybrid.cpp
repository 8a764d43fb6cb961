#include "qianli/model/families/mamba.h"

namespace qianli::model {
namespace {

// Megatron-LM's word for a stack: M a Mamba-2 layer, * attention, - an MLP.
void read_pattern(const ConfigReader& config, ModelSpec& spec) {
  const std::string pattern = config.text("hybrid_override_pattern", "");
  if (static_cast<int64_t>(pattern.size()) != spec.num_layers) {
    config.fail("hybrid_override_pattern", "one letter per layer: M, * or -");
  }
  for (const char letter : pattern) {
    if (letter != 'M' && letter != '*' && letter != '-') {
      config.fail("hybrid_override_pattern", "no letters but M, * and -");
    }
    spec.layer_pattern.push_back(letter == 'M'   ? MixerKind::kMamba2
                                 : letter == '*' ? MixerKind::kAttention
                                                 : MixerKind::kNone);
    spec.feed_forward_pattern.push_back(letter == '-');
  }
}

void read(const ConfigReader& config, ModelSpec& spec) {
  spec.layer_pattern.clear();
  spec.feed_forward_pattern.clear();
  read_mamba(config, spec);
  read_pattern(config, spec);
  spec.gated_mlp = config.flag("gated_mlp", false);
  spec.activation = read_activation(config, "mlp_act", "gelu");
}

void write(const ModelSpec& spec, OrderedJson& config) {
  write_mamba(spec, config);
  std::string pattern;
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const LayerSpec layer = spec.layer(l);
    pattern += layer.mixer == MixerKind::kMamba2 ? 'M' : layer.has_attention() ? '*' : '-';
  }
  config["hybrid_override_pattern"] = pattern;
  config["gated_mlp"] = spec.gated_mlp;
  config["mlp_act"] = activation_word(spec.activation);
}

// Megatron-LM's own names; norms of attention and MLP layers are fused into the linear behind them.
ForeignNames names() {
  return {
      .embedding = "embedding.word_embeddings",
      .layer = "decoder.layers.{l}.",
      .input_norm = "self_attention.linear_qkv.layer_norm_*",
      .mamba_norm = "norm",
      .qkv = {"self_attention.linear_qkv"},
      .qkv_order = QkvOrder::kByGroup,
      .attention_out = "self_attention.linear_proj",
      .mamba = {.in = "mixer.in_proj",
                .conv = "mixer.conv1d",
                .norm = "mixer.norm",
                .out = "mixer.out_proj",
                .a_log = "mixer.A_log",
                .d = "mixer.D",
                .dt_bias = "mixer.dt_bias"},
      .mlp_norm = "mlp.linear_fc1.layer_norm_*",
      .mlp_in = {"mlp.linear_fc1"},
      .mlp_out = "mlp.linear_fc2",
      .final_norm = "decoder.final_norm",
      .output = "output_layer",
  };
}

}  // namespace

const Family& mamba2_hybrid_family() {
  static const Family family{
      .model_type = "mamba2_hybrid",
      .architecture = "Mamba2HybridForCausalLM",
      .traits = {.family = "mamba2_hybrid",
                 .position = PositionKind::kNone,
                 .layer_pattern = {MixerKind::kMamba2, MixerKind::kNone},
                 .feed_forward_pattern = {false, true},
                 .gated_mlp = false,
                 .activation = Activation::kGelu,
                 .mamba2 = Mamba2{}},
      .names = names(),
      .keys =
          with_keys(mamba_keys(), {{"num_attention_heads", "num_attention_heads"},
                                   {"num_key_value_heads", "num_query_groups", as_many_as_heads},
                                   {"attention_head_dim", "head_dim", hidden_by_heads},
                                   {"intermediate_size", "ffn_hidden_size"}}),
      .guards = {{"use_bias", {false}}},
      .read = read,
      .write = write,
  };
  return family;
}

}  // namespace qianli::model
