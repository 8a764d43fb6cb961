#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

// A GPT with experts as in Megatron-LM's examples. No model of the kind is published: the keys are
// this program's own, in transformers' words.
void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config,
               {.bos_token_id = std::nullopt, .eos_token_id = std::nullopt, .activation = "gelu"},
               spec);
  spec.moe->ffn_hidden_size = spec.ffn_hidden_size;
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  names.experts = {
      .router = "mlp.gate", .in = {"mlp.experts.{e}.up_proj"}, .out = "mlp.experts.{e}.down_proj"};
  return names;
}

}  // namespace

const Family& gpt4_moe_family() {
  static const Family family{
      .model_type = "gpt4_moe",
      .architecture = "Gpt4MoeForCausalLM",
      .traits = {.family = "gpt4_moe",
                 .norm = NormKind::kLayerNorm,
                 .norm_bias = true,
                 .gated_mlp = false,
                 .activation = Activation::kGelu,
                 .tie_word_embeddings = true,
                 .moe = MixtureOfExperts{.score = RouterScore::kTopKSoftmax}},
      .names = names(),
      .keys = with_keys(decoder_keys({.max_positions = 2048, .norm_eps = 1e-5, .tie = true}),
                        {{"num_local_experts", "moe.num_experts"},
                         {"num_experts_per_tok", "moe.top_k", 2},
                         {"router_aux_loss_coef", "moe.aux_loss_coeff", 0.01}}),
      .read = read,
      .write = write_decoder,
  };
  return family;
}

}  // namespace qianli::model
