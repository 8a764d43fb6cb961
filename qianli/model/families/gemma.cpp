#include <algorithm>
#include <cmath>

#include "qianli/model/families/decoder.h"

namespace qianli::model {
namespace {

void read(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 2, .eos_token_id = 1, .activation = "gelu_pytorch_tanh"},
               spec);
  // Where it is there, the later key has the last word.
  if (config.has("hidden_activation")) {
    spec.activation = read_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  }
  spec.attention_out_bias = spec.qkv_bias;
  spec.embedding_multiplier =
      std::sqrt(static_cast<double>(std::max<int64_t>(spec.hidden_size, 0)));
}

}  // namespace

const Family& gemma_family() {
  static const Family family{
      .model_type = "gemma",
      .architecture = "GemmaForCausalLM",
      .traits = {.family = "gemma",
                 .norm_zero_centered = true,
                 .activation = Activation::kGeluTanh,
                 .tie_word_embeddings = true},
      .names = decoder_names(),
      .keys = with_keys(
          decoder_keys(
              {.key_value_heads = 16, .head_dim = 256, .max_positions = 8192, .tie = true}),
          {{"attention_bias", "qkv_bias", false}}),
      .guards = {{"use_bidirectional_attention", {false}}},
      .read = read,
      .write = write_decoder,
  };
  return family;
}

}  // namespace qianli::model
