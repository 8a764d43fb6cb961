#include "qianli/model/families/decoder.h"

#include <fmt/core.h>

#include <algorithm>

namespace qianli::model {
namespace {

// The word of a layer's kind in `layer_types`.
struct TypeWord {
  MixerKind kind;
  const char* word;
};
constexpr TypeWord kTypes[] = {{MixerKind::kAttention, "full_attention"},
                               {MixerKind::kSlidingAttention, "sliding_attention"},
                               {MixerKind::kGatedDeltaNet, "linear_attention"}};

std::vector<MixerKind> pattern_of(const ConfigReader& config, int64_t further,
                                  const ModelSpec& spec) {
  std::vector<MixerKind> pattern;
  for (const std::string& type : config.texts("layer_types")) {
    const auto found =
        std::ranges::find_if(kTypes, [&](const TypeWord& t) { return t.word == type; });
    if (found == std::end(kTypes)) {
      config.fail("layer_types", "full_attention, sliding_attention or linear_attention");
    }
    pattern.push_back(found->kind);
  }
  check_layers(config, "layer_types", pattern.size(), further, spec);
  pattern.resize(static_cast<size_t>(spec.num_layers));
  return pattern;
}

}  // namespace

ForeignNames decoder_names() {
  return {
      .optional_prefix = "model.",
      .embedding = "model.embed_tokens",
      .layer = "model.layers.{l}.",
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

int64_t as_many_as_heads(const ModelSpec& spec) { return spec.num_attention_heads; }

int64_t hidden_by_heads(const ModelSpec& spec) {
  return spec.num_attention_heads < 1 ? 0 : spec.hidden_size / spec.num_attention_heads;
}

std::vector<Key> decoder_keys(const DecoderDefaults& defaults) {
  const Fallback heads =
      defaults.key_value_heads > 0 ? Fallback(defaults.key_value_heads) : as_many_as_heads;
  const Fallback head_dim = defaults.head_dim > 0 ? Fallback(defaults.head_dim) : hidden_by_heads;
  return {
      {"hidden_size", "hidden_size"},
      {"intermediate_size", "ffn_hidden_size"},
      {"num_hidden_layers", "num_layers"},
      {"num_attention_heads", "num_attention_heads"},
      {"num_key_value_heads", "num_query_groups", heads, as_many_as_heads},
      {"head_dim", "head_dim", head_dim, hidden_by_heads},
      {"vocab_size", "vocab_size"},
      {"max_position_embeddings", "max_position_embeddings", defaults.max_positions},
      {"rms_norm_eps", "norm_eps", defaults.norm_eps},
      {"tie_word_embeddings", "tie_word_embeddings", defaults.tie},
      {"initializer_range", "init_std", 0.02},
  };
}

std::vector<Key> with_keys(std::vector<Key> keys, const std::vector<Key>& others) {
  for (const Key& other : others) {
    const auto found = std::ranges::find(keys, other.field, &Key::field);
    if (found != keys.end()) {
      *found = other;
    } else {
      keys.push_back(other);
    }
  }
  return keys;
}

std::vector<Key> without_key(std::vector<Key> keys, const std::string& key) {
  std::erase_if(keys, [&](const Key& one) { return one.key == key; });
  return keys;
}

Activation read_activation(const ConfigReader& config, const std::string& key,
                           const std::string& fallback) {
  const std::string word = config.text(key, fallback);
  if (word == "silu" || word == "swish") return Activation::kSilu;
  if (word == "gelu") return Activation::kGelu;
  if (word == "gelu_new" || word == "gelu_pytorch_tanh" || word == "gelu_fast") {
    return Activation::kGeluTanh;
  }
  if (word == "relu") return Activation::kRelu;
  if (word == "relu2") return Activation::kRelu2;
  config.fail(key, "one of silu, swish, gelu, gelu_new, gelu_pytorch_tanh, relu, relu2");
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

void read_decoder(const ConfigReader& config, const DecoderExtras& extras, ModelSpec& spec) {
  spec.activation = read_activation(config, "hidden_act", extras.activation);
  read_rope(config, extras.rope, spec);
  read_tokens(config, extras.bos_token_id, extras.eos_token_id, spec);
}

void write_decoder(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_act"] = activation_word(spec.activation);
  write_rope(spec, config);
  write_tokens(spec, config);
}

void check_layers(const ConfigReader& config, const char* key, size_t length, int64_t further,
                  const ModelSpec& spec) {
  const auto found = static_cast<int64_t>(length);
  if (spec.num_layers >= 0 && (found == spec.num_layers || found == spec.num_layers + further)) {
    return;
  }
  config.fail(key, fmt::format("one value per layer ({})", spec.num_layers));
}

void read_layer_types(const ConfigReader& config, std::vector<MixerKind> pattern,
                      std::optional<int64_t> window, ModelSpec& spec, int64_t further) {
  const bool said = !config.texts("layer_types").empty();
  if (said) pattern = pattern_of(config, further, spec);
  if (!said && static_cast<int64_t>(pattern.size()) > spec.num_layers) {
    pattern.resize(static_cast<size_t>(std::max<int64_t>(spec.num_layers, 0)));
  }
  const bool sliding = std::ranges::find(pattern, MixerKind::kSlidingAttention) != pattern.end();
  if (said && sliding && !window) {
    config.fail("layer_types", "no sliding_attention, as no window is set");
  }
  if (!window) std::ranges::replace(pattern, MixerKind::kSlidingAttention, MixerKind::kAttention);
  spec.sliding_window = sliding ? window : std::nullopt;
  spec.layer_pattern = shortest(std::move(pattern));
  const bool alike =
      spec.layer_pattern.size() == 1 && spec.layer_pattern[0] != MixerKind::kGatedDeltaNet;
  if (alike) spec.layer_pattern.clear();  // follows from the window
}

void write_layer_types(const ModelSpec& spec, OrderedJson& config) {
  OrderedJson types = OrderedJson::array();
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const MixerKind kind = spec.layer(l).mixer;
    for (const TypeWord& type : kTypes) {
      if (type.kind == kind) types.push_back(type.word);
    }
  }
  config["layer_types"] = types;
}

void read_qwen_window(const ConfigReader& config, ModelSpec& spec) {
  const bool switched_on = config.flag("use_sliding_window", false);
  auto window = config.contains("sliding_window") ? config.optional_integer("sliding_window")
                                                  : std::optional<int64_t>(4096);
  if (!switched_on) window.reset();
  const int64_t first = config.integer("max_window_layers", 28);  // layers before it see everything
  if (first < 0) config.fail("max_window_layers", "0 or more");
  const int64_t full = std::clamp<int64_t>(first, 0, std::max<int64_t>(spec.num_layers, 0));
  if (spec.num_layers > 100000) return;  // refused by validate()
  std::vector<MixerKind> pattern(static_cast<size_t>(std::max<int64_t>(spec.num_layers, 0)),
                                 MixerKind::kSlidingAttention);
  std::fill_n(pattern.begin(), full, MixerKind::kAttention);
  if (!switched_on && !config.texts("layer_types").empty()) {
    const auto types = config.texts("layer_types");
    if (std::ranges::find(types, "sliding_attention") != types.end()) {
      config.fail("use_sliding_window", "true, as layer_types says");
    }
  }
  read_layer_types(config, std::move(pattern), window, spec);
}

void write_qwen_window(const ModelSpec& spec, OrderedJson& config) {
  config["use_sliding_window"] = spec.sliding_window.has_value();
  config["sliding_window"] =
      spec.sliding_window ? OrderedJson(*spec.sliding_window) : OrderedJson();
  config["max_window_layers"] = spec.sliding_window ? 0 : spec.num_layers;
  if (!spec.layer_pattern.empty()) write_layer_types(spec, config);
}

}  // namespace qianli::model
