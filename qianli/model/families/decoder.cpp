#include "qianli/model/families/decoder.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/model/rope_config.h"

namespace qianli::model {
namespace {

enum class Windowed { kNone, kAll, kUnsaid };

// What `layer_types` says; throws where layers differ or are of a third kind.
Windowed windowed_layers(const ConfigReader& config, const ModelSpec& spec) {
  const auto types = config.texts("layer_types");
  if (types.empty()) return Windowed::kUnsaid;
  const auto full = std::count(types.begin(), types.end(), "full_attention");
  const auto sliding = std::count(types.begin(), types.end(), "sliding_attention");
  const auto count = static_cast<int64_t>(types.size());
  if (count != spec.num_layers) {
    config.fail("layer_types", fmt::format("one type per layer ({})", spec.num_layers));
  }
  if (full == count) return Windowed::kNone;
  if (sliding == count) return Windowed::kAll;
  config.fail("layer_types", "full_attention in all layers, or sliding_attention in all",
              "models that mix kinds of attention over their layers are not supported");
}

}  // namespace

ForeignNames decoder_names() {
  return {
      .optional_prefix = "model.",
      .embedding = "model.embed_tokens",
      .layer = "model.layers.{}.",
      .input_norm = "input_layernorm",
      .qkv = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
      .attention_out = "self_attn.o_proj",
      .mlp_norm = "post_attention_layernorm",
      .mlp_in = {"mlp.gate_proj", "mlp.up_proj"},
      .mlp_out = "mlp.down_proj",
      .final_norm = "model.norm",
      .output = "lm_head",
  };
}

Activation read_activation(const ConfigReader& config, const std::string& key,
                           const std::string& fallback) {
  const std::string word = config.text(key, fallback);
  if (word == "silu" || word == "swish") return Activation::kSilu;
  if (word == "gelu") return Activation::kGelu;
  if (word == "gelu_new" || word == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  if (word == "relu") return Activation::kRelu;
  config.fail(key, "one of silu, swish, gelu, gelu_new, gelu_pytorch_tanh, relu");
}

std::string activation_word(Activation activation, const std::string& gelu_tanh) {
  return activation == Activation::kGeluTanh ? gelu_tanh : to_string(activation);
}

void read_tokens(const ConfigReader& config, std::optional<int64_t> bos, std::optional<int64_t> eos,
                 ModelSpec& spec) {
  // Early LLaMA files write -1 for "none".
  const auto known = [](std::optional<int64_t> id) { return id && *id < 0 ? std::nullopt : id; };
  spec.bos_token_id =
      known(config.contains("bos_token_id") ? config.optional_integer("bos_token_id") : bos);
  spec.pad_token_id = known(config.optional_integer("pad_token_id"));
  spec.eos_token_ids = config.integers("eos_token_id");
  if (!config.contains("eos_token_id") && eos) spec.eos_token_ids = {*eos};
  std::erase_if(spec.eos_token_ids, [](int64_t id) { return id < 0; });
}

void write_tokens(const ModelSpec& spec, OrderedJson& config) {
  const auto id_or_null = [](std::optional<int64_t> id) {
    return id ? OrderedJson(*id) : OrderedJson();
  };
  config["bos_token_id"] = id_or_null(spec.bos_token_id);
  config["eos_token_id"] = nullptr;
  if (spec.eos_token_ids.size() == 1) config["eos_token_id"] = spec.eos_token_ids.front();
  if (spec.eos_token_ids.size() > 1) config["eos_token_id"] = spec.eos_token_ids;
  config["pad_token_id"] = id_or_null(spec.pad_token_id);
}

void read_decoder(const ConfigReader& config, const DecoderDefaults& defaults, ModelSpec& spec) {
  spec.num_layers = config.integer("num_hidden_layers");
  spec.hidden_size = config.integer("hidden_size");
  spec.ffn_hidden_size = config.integer("intermediate_size");
  spec.num_attention_heads = config.integer("num_attention_heads");
  if (spec.num_attention_heads < 1) config.fail("num_attention_heads", "a positive integer");
  const bool default_groups =
      !config.contains("num_key_value_heads") && defaults.key_value_heads > 0;
  spec.num_query_groups = default_groups
                              ? defaults.key_value_heads
                              : config.integer("num_key_value_heads", spec.num_attention_heads);
  const bool default_head = !config.contains("head_dim") && defaults.head_dim > 0;
  spec.head_dim = default_head
                      ? defaults.head_dim
                      : config.integer("head_dim", spec.hidden_size / spec.num_attention_heads);
  spec.vocab_size = config.integer("vocab_size");
  spec.max_position_embeddings = config.integer("max_position_embeddings", defaults.max_positions);
  spec.norm_eps = config.number("rms_norm_eps", 1e-6);
  spec.activation = read_activation(config, "hidden_act", "silu");
  spec.tie_word_embeddings = config.flag("tie_word_embeddings", false);
  spec.init_std = config.number("initializer_range", 0.02);
  read_rope(config, spec);
  read_tokens(config, defaults.bos_token_id, defaults.eos_token_id, spec);
}

void write_decoder(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_size"] = spec.hidden_size;
  config["intermediate_size"] = spec.ffn_hidden_size;
  config["num_hidden_layers"] = spec.num_layers;
  config["num_attention_heads"] = spec.num_attention_heads;
  config["num_key_value_heads"] = spec.num_query_groups;
  config["head_dim"] = spec.head_dim;
  config["vocab_size"] = spec.vocab_size;
  config["max_position_embeddings"] = spec.max_position_embeddings;
  config["hidden_act"] = activation_word(spec.activation, "gelu_pytorch_tanh");
  config["rms_norm_eps"] = spec.norm_eps;
  write_rope(spec, config);
  config["tie_word_embeddings"] = spec.tie_word_embeddings;
  config["initializer_range"] = spec.init_std;
  write_tokens(spec, config);
}

void check_layer_types(const ConfigReader& config, const ModelSpec& spec) {
  const Windowed said = windowed_layers(config, spec);
  if (said == Windowed::kUnsaid) return;
  if ((said == Windowed::kAll) != spec.sliding_window.has_value()) {
    config.fail("layer_types", spec.sliding_window
                                   ? "sliding_attention in all layers, as sliding_window is set"
                                   : "full_attention in all layers, as no window is set");
  }
}

void read_qwen_window(const ConfigReader& config, ModelSpec& spec) {
  const bool switched_on = config.flag("use_sliding_window", false);
  const auto window = config.contains("sliding_window") ? config.optional_integer("sliding_window")
                                                        : std::optional<int64_t>(4096);
  const bool used = switched_on && window.has_value();
  const int64_t first = config.integer("max_window_layers", 28);  // layers before it see everything
  Windowed said = windowed_layers(config, spec);
  if (said == Windowed::kUnsaid) {
    if (used && first > 0 && first < spec.num_layers) {
      config.fail("max_window_layers",
                  fmt::format("0 or at least {} (all layers alike)", spec.num_layers),
                  "models that mix kinds of attention over their layers are not supported");
    }
    said = used && first <= 0 ? Windowed::kAll : Windowed::kNone;
  }
  if (said == Windowed::kAll && !used)
    config.fail("use_sliding_window", "true, as layer_types says");
  spec.sliding_window = said == Windowed::kAll ? window : std::nullopt;
}

void write_qwen_window(const ModelSpec& spec, OrderedJson& config) {
  config["use_sliding_window"] = spec.sliding_window.has_value();
  config["sliding_window"] =
      spec.sliding_window ? OrderedJson(*spec.sliding_window) : OrderedJson();
  config["max_window_layers"] = spec.sliding_window ? 0 : spec.num_layers;
}

}  // namespace qianli::model
