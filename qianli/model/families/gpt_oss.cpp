#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

// Where the file says nothing, the class rotates as the published models do.
void read_rope_or_default(const ConfigReader& config, ModelSpec& spec) {
  spec.rope.base = config.number("rope_theta", 150000.0);
  if (config.has("rope_scaling") || config.has("rope_parameters")) {
    return read_rope(config, {.base = 150000.0}, spec);
  }
  spec.rope.scaling = {.kind = RopeScalingKind::kYarn,
                       .factor = 32.0,
                       .original_max_positions = 4096,
                       .truncate = false};
}

void read(const ConfigReader& config, ModelSpec& spec) {
  if (config.text("hidden_act", "silu") != "silu") config.fail("hidden_act", "silu");
  read_rope_or_default(config, spec);
  read_tokens(config, std::nullopt, std::nullopt, spec);
  spec.attention_out_bias = spec.qkv_bias;
  spec.activation_limit = {config.number("swiglu_limit", 7.0)};
  spec.moe->ffn_hidden_size = spec.ffn_hidden_size;
  read_layer_types(config, {MixerKind::kSlidingAttention, MixerKind::kAttention},
                   spec.sliding_window, spec);
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_act"] = "silu";
  if (spec.activation_limit.size() == 1) config["swiglu_limit"] = spec.activation_limit[0];
  write_rope(spec, config);
  if (spec.rope.scaling.kind == RopeScalingKind::kNone) {
    config["rope_scaling"] = {{"rope_type", "default"}};
  }
  write_layer_types(spec, config);
  write_tokens(spec, config);
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.sinks = "self_attn.sinks";
  names.experts = {.router = "mlp.router",
                   .stack = ExpertStack::kWovenInputs,
                   .stacked_in = {"mlp.experts.gate_up_proj"},
                   .stacked_out = "mlp.experts.down_proj",
                   .stacked_in_bias = "mlp.experts.gate_up_proj_bias",
                   .stacked_out_bias = "mlp.experts.down_proj_bias"};
  return names;
}

}  // namespace

const Family& gpt_oss_family() {
  static const Family family{
      .model_type = "gpt_oss",
      .architecture = "GptOssForCausalLM",
      .traits = {.family = "gpt_oss",
                 .activation = Activation::kClampedSwiglu,
                 .activation_limit = {7.0},
                 .qkv_bias = true,
                 .attention_out_bias = true,
                 .attention_sinks = true,
                 .moe = MixtureOfExperts{.score = RouterScore::kTopKSoftmax,
                                         .router_bias = true,
                                         .expert_bias = true}},
      .names = names(),
      .keys = with_keys(
          decoder_keys(
              {.key_value_heads = 8, .head_dim = 64, .max_positions = 131072, .norm_eps = 1e-5}),
          {{"attention_bias", "qkv_bias", true},
           {"sliding_window", "sliding_window", 128},
           {.key = "num_local_experts",
            .field = "moe.num_experts",
            .absent = 128,
            .also = "num_experts"},
           {"num_experts_per_tok", "moe.top_k", 4},
           {"router_aux_loss_coef", "moe.aux_loss_coeff", 0.001}}),
      .others = {{"swiglu_limit", "activation_limit"}},
      .read = read,
      .write = write,
      .silent = {"experts_per_token", "initial_context_length", "output_router_logits"},
  };
  return family;
}

}  // namespace qianli::model
