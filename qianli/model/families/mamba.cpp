#include "qianli/model/families/mamba.h"

namespace qianli::model {

std::vector<Key> mamba_keys() {
  return {{"hidden_size", "hidden_size"},
          {"num_hidden_layers", "num_layers"},
          {"vocab_size", "vocab_size"},
          // No position is encoded; kept for programs that ask how long sequences may be.
          {"max_position_embeddings", "max_position_embeddings", 1048576},
          {"layer_norm_epsilon", "norm_eps", 1e-5},
          {"state_size", "mamba2.state_size", 128},
          {"head_dim", "mamba2.head_dim", 64},
          {"n_groups", "mamba2.num_groups", 8},
          {"conv_kernel", "mamba2.conv_kernel", 4},
          {"chunk_size", "mamba2.chunk_size", 256},
          {"use_conv_bias", "mamba2.conv_bias", true},
          {"tie_word_embeddings", "tie_word_embeddings", false},
          {"initializer_range", "init_std", 0.1}};
}

void read_mamba(const ConfigReader& config, ModelSpec& spec) {
  const int64_t heads = config.integer("num_heads", 128), size = spec.mamba2->head_dim;
  if (heads < 1 || heads > 65536) config.fail("num_heads", "a number between 1 and 65536");
  if (size < 1 || size > 65536) config.fail("head_dim", "a size between 1 and 65536");
  spec.mamba2->inner_size = heads * size;
  if (config.has("expand") && spec.hidden_size > 0 && spec.hidden_size <= INT32_MAX) {
    const double inner = config.number("expand") * static_cast<double>(spec.hidden_size);
    if (inner != static_cast<double>(spec.mamba2->inner_size)) {
      config.fail("expand", "hidden_size * expand equal to num_heads * head_dim");
    }
  }
  if (config.text("hidden_act", "silu") != "silu") config.fail("hidden_act", "silu");
  read_tokens(config, 0, 2, spec);
}

void write_mamba(const ModelSpec& spec, OrderedJson& config) {
  const int64_t inner = spec.mamba2->inner_size;
  config["num_heads"] = spec.mamba2->num_heads();
  config["expand"] =
      inner % spec.hidden_size == 0
          ? OrderedJson(inner / spec.hidden_size)
          : OrderedJson(static_cast<double>(inner) / static_cast<double>(spec.hidden_size));
  config["hidden_act"] = "silu";
  config["use_bias"] = false;
  write_tokens(spec, config);
}

}  // namespace qianli::model
