#include "qianli/model/spec_fields.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <array>
#include <charconv>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/model/spec_words.h"

namespace qianli::model {
namespace {

// Every struct of a spec, its members in order.
template <class Visitor>
void members(Rope*, Visitor&& v) {
  v("base", &Rope::base);
  v("fraction", &Rope::fraction);
  v("interleaved", &Rope::interleaved);
  v("scaling", &Rope::scaling);
}

template <class Visitor>
void members(RopeScaling*, Visitor&& v) {
  v("kind", &RopeScaling::kind);
  v("factor", &RopeScaling::factor);
  v("original_max_positions", &RopeScaling::original_max_positions);
  v("low_freq_factor", &RopeScaling::low_freq_factor);
  v("high_freq_factor", &RopeScaling::high_freq_factor);
  v("beta_fast", &RopeScaling::beta_fast);
  v("beta_slow", &RopeScaling::beta_slow);
  v("attention_factor", &RopeScaling::attention_factor);
  v("truncate", &RopeScaling::truncate);
  v("mscale", &RopeScaling::mscale);
  v("mscale_all_dim", &RopeScaling::mscale_all_dim);
  v("short_factor", &RopeScaling::short_factor);
  v("long_factor", &RopeScaling::long_factor);
  v("short_mscale", &RopeScaling::short_mscale);
  v("long_mscale", &RopeScaling::long_mscale);
}

template <class Visitor>
void members(LatentAttention*, Visitor&& v) {
  v("q_lora_rank", &LatentAttention::q_lora_rank);
  v("kv_lora_rank", &LatentAttention::kv_lora_rank);
  v("qk_nope_head_dim", &LatentAttention::qk_nope_head_dim);
  v("qk_rope_head_dim", &LatentAttention::qk_rope_head_dim);
  v("v_head_dim", &LatentAttention::v_head_dim);
  v("q_lora_scale", &LatentAttention::q_lora_scale);
  v("kv_lora_scale", &LatentAttention::kv_lora_scale);
  v("norm_eps", &LatentAttention::norm_eps);
}

template <class Visitor>
void members(CompressedAttention*, Visitor&& v) {
  v("q_lora_rank", &CompressedAttention::q_lora_rank);
  v("output_groups", &CompressedAttention::output_groups);
  v("output_lora_rank", &CompressedAttention::output_lora_rank);
  v("sparse_ratio", &CompressedAttention::sparse_ratio);
  v("heavy_ratio", &CompressedAttention::heavy_ratio);
}

template <class Visitor>
void members(HyperConnections*, Visitor&& v) {
  v("streams", &HyperConnections::streams);
  v("sinkhorn_iterations", &HyperConnections::sinkhorn_iterations);
  v("eps", &HyperConnections::eps);
}

template <class Visitor>
void members(Indexer*, Visitor&& v) {
  v("num_heads", &Indexer::num_heads);
  v("head_dim", &Indexer::head_dim);
  v("top_k", &Indexer::top_k);
  v("frequency", &Indexer::frequency);
  v("skip", &Indexer::skip);
  v("interleaved", &Indexer::interleaved);
  v("loss_coeff", &Indexer::loss_coeff);
}

template <class Visitor>
void members(MixtureOfExperts*, Visitor&& v) {
  v("num_experts", &MixtureOfExperts::num_experts);
  v("top_k", &MixtureOfExperts::top_k);
  v("ffn_hidden_size", &MixtureOfExperts::ffn_hidden_size);
  v("shared_ffn_hidden_size", &MixtureOfExperts::shared_ffn_hidden_size);
  v("shared_gate", &MixtureOfExperts::shared_gate);
  v("num_zero_experts", &MixtureOfExperts::num_zero_experts);
  v("score", &MixtureOfExperts::score);
  v("normalize_top_k", &MixtureOfExperts::normalize_top_k);
  v("scaling_factor", &MixtureOfExperts::scaling_factor);
  v("num_groups", &MixtureOfExperts::num_groups);
  v("topk_groups", &MixtureOfExperts::topk_groups);
  v("group_score", &MixtureOfExperts::group_score);
  v("selection_bias", &MixtureOfExperts::selection_bias);
  v("router_bias", &MixtureOfExperts::router_bias);
  v("expert_bias", &MixtureOfExperts::expert_bias);
  v("sparse_mixer_epsilon", &MixtureOfExperts::sparse_mixer_epsilon);
  v("router_dtype", &MixtureOfExperts::router_dtype);
  v("activation_limit", &MixtureOfExperts::activation_limit);
  v("first_k_dense", &MixtureOfExperts::first_k_dense);
  v("layer_frequency", &MixtureOfExperts::layer_frequency);
  v("layer_offset", &MixtureOfExperts::layer_offset);
  v("dense_layers", &MixtureOfExperts::dense_layers);
  v("num_hash_layers", &MixtureOfExperts::num_hash_layers);
  v("shortcut", &MixtureOfExperts::shortcut);
  v("aux_loss_coeff", &MixtureOfExperts::aux_loss_coeff);
  v("sequence_aux_loss_coeff", &MixtureOfExperts::sequence_aux_loss_coeff);
  v("device_aux_loss_coeff", &MixtureOfExperts::device_aux_loss_coeff);
  v("communication_aux_loss_coeff", &MixtureOfExperts::communication_aux_loss_coeff);
  v("z_loss_coeff", &MixtureOfExperts::z_loss_coeff);
  v("sinkhorn", &MixtureOfExperts::sinkhorn);
  v("bias_update_rate", &MixtureOfExperts::bias_update_rate);
  v("input_jitter", &MixtureOfExperts::input_jitter);
  v("capacity_factor", &MixtureOfExperts::capacity_factor);
  v("token_drop_policy", &MixtureOfExperts::token_drop_policy);
  v("pad_to_capacity", &MixtureOfExperts::pad_to_capacity);
}

template <class Visitor>
void members(GatedDeltaNet*, Visitor&& v) {
  v("num_key_heads", &GatedDeltaNet::num_key_heads);
  v("num_value_heads", &GatedDeltaNet::num_value_heads);
  v("key_head_dim", &GatedDeltaNet::key_head_dim);
  v("value_head_dim", &GatedDeltaNet::value_head_dim);
  v("conv_kernel", &GatedDeltaNet::conv_kernel);
}

template <class Visitor>
void members(Mamba2*, Visitor&& v) {
  v("state_size", &Mamba2::state_size);
  v("head_dim", &Mamba2::head_dim);
  v("num_groups", &Mamba2::num_groups);
  v("inner_size", &Mamba2::inner_size);
  v("conv_kernel", &Mamba2::conv_kernel);
  v("chunk_size", &Mamba2::chunk_size);
  v("conv_bias", &Mamba2::conv_bias);
  v("norm_before_gate", &Mamba2::norm_before_gate);
}

template <class Visitor>
void members(MultiTokenPrediction*, Visitor&& v) {
  v("num_layers", &MultiTokenPrediction::num_layers);
  v("after_final_norm", &MultiTokenPrediction::after_final_norm);
  v("loss_scaling_factor", &MultiTokenPrediction::loss_scaling_factor);
}

template <class Visitor>
void attention_members(Visitor& v) {
  v("qkv_bias", &ModelSpec::qkv_bias);
  v("attention_out_bias", &ModelSpec::attention_out_bias);
  v("mlp_bias", &ModelSpec::mlp_bias);
  v("output_bias", &ModelSpec::output_bias);
  v("tie_word_embeddings", &ModelSpec::tie_word_embeddings);
  v("query_pre_attn_scalar", &ModelSpec::query_pre_attn_scalar);
  v("attention_softcap", &ModelSpec::attention_softcap);
  v("final_logit_softcap", &ModelSpec::final_logit_softcap);
  v("qkv_clip", &ModelSpec::qkv_clip);
  v("attention_sinks", &ModelSpec::attention_sinks);
  v("attention_gate", &ModelSpec::attention_gate);
  v("key_value_share_factor", &ModelSpec::key_value_share_factor);
}

template <class Visitor>
void members(ModelSpec*, Visitor&& v) {
  v("family", &ModelSpec::family);
  v("num_layers", &ModelSpec::num_layers);
  v("hidden_size", &ModelSpec::hidden_size);
  v("ffn_hidden_size", &ModelSpec::ffn_hidden_size);
  v("num_attention_heads", &ModelSpec::num_attention_heads);
  v("num_query_groups", &ModelSpec::num_query_groups);
  v("head_dim", &ModelSpec::head_dim);
  v("vocab_size", &ModelSpec::vocab_size);
  v("max_position_embeddings", &ModelSpec::max_position_embeddings);
  v("norm", &ModelSpec::norm);
  v("norm_placement", &ModelSpec::norm_placement);
  v("norm_eps", &ModelSpec::norm_eps);
  v("norm_bias", &ModelSpec::norm_bias);
  v("norm_zero_centered", &ModelSpec::norm_zero_centered);
  v("embedding_norm", &ModelSpec::embedding_norm);
  v("qk_norm", &ModelSpec::qk_norm);
  v("position", &ModelSpec::position);
  v("rope", &ModelSpec::rope);
  v("sliding_rope", &ModelSpec::sliding_rope);
  v("rotary_on_sliding_layers_only", &ModelSpec::rotary_on_sliding_layers_only);
  v("rotary_pattern", &ModelSpec::rotary_pattern);
  v("layer_pattern", &ModelSpec::layer_pattern);
  v("feed_forward_pattern", &ModelSpec::feed_forward_pattern);
  v("sliding_window", &ModelSpec::sliding_window);
  v("sliding_num_attention_heads", &ModelSpec::sliding_num_attention_heads);
  v("sliding_num_query_groups", &ModelSpec::sliding_num_query_groups);
  v("gated_mlp", &ModelSpec::gated_mlp);
  v("activation", &ModelSpec::activation);
  v("activation_limit", &ModelSpec::activation_limit);
  v("limit_before_activation", &ModelSpec::limit_before_activation);
  attention_members(v);
  v("embedding_multiplier", &ModelSpec::embedding_multiplier);
  v("residual_multiplier", &ModelSpec::residual_multiplier);
  v("hidden_divisor", &ModelSpec::hidden_divisor);
  v("logits_multiplier", &ModelSpec::logits_multiplier);
  v("normalized_output", &ModelSpec::normalized_output);
  v("latent_attention", &ModelSpec::latent_attention);
  v("compressed_attention", &ModelSpec::compressed_attention);
  v("indexer", &ModelSpec::indexer);
  v("hyper_connections", &ModelSpec::hyper_connections);
  v("moe", &ModelSpec::moe);
  v("gated_delta_net", &ModelSpec::gated_delta_net);
  v("mamba2", &ModelSpec::mamba2);
  v("mtp", &ModelSpec::mtp);
  v("init_std", &ModelSpec::init_std);
  v("bos_token_id", &ModelSpec::bos_token_id);
  v("eos_token_ids", &ModelSpec::eos_token_ids);
  v("pad_token_id", &ModelSpec::pad_token_id);
}

struct NoVisitor {
  template <class Member>
  void operator()(const char*, Member) {}
};
template <class T>
concept Part = requires(T* part, NoVisitor v) {
  members(part, v);
};

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

template <class Enum>
WordField word_field(Enum& value) {
  WordField field{.get = [&value] { return to_string(value); },
                  .set = [&value](std::string_view word) { return from_word(word, value); },
                  .words = {}};
  for (const auto& [key, word] : words_of(value)) field.words.emplace_back(word);
  return field;
}

WordListField list_field(std::vector<MixerKind>& value) {
  return {.get =
              [&value] {
                std::vector<std::string> words;
                for (const MixerKind kind : value) words.push_back(to_string(kind));
                return words;
              },
          .set =
              [&value](const std::vector<std::string>& words) {
                value.assign(words.size(), MixerKind::kNone);
                for (size_t i = 0; i < words.size(); ++i) {
                  if (!from_word(words[i], value[i])) return false;
                }
                return true;
              }};
}

WordListField list_field(std::vector<bool>& value) {
  return {.get =
              [&value] {
                std::vector<std::string> words;
                for (const bool one : value) words.emplace_back(one ? "true" : "false");
                return words;
              },
          .set =
              [&value](const std::vector<std::string>& words) {
                value.clear();
                for (const std::string& word : words) {
                  if (word != "true" && word != "false") return false;
                  value.push_back(word == "true");
                }
                return true;
              }};
}

template <class T>
FieldValue reference(T& value) {
  if constexpr (std::is_enum_v<T>) {
    return word_field(value);
  } else if constexpr (std::is_same_v<T, std::vector<MixerKind>> ||
                       std::is_same_v<T, std::vector<bool>>) {
    return list_field(value);
  } else {
    return &value;
  }
}

template <class T>
void collect(T& part, const std::string& prefix, std::vector<SpecField>& fields) {
  members(static_cast<T*>(nullptr), [&](const char* name, auto member) {
    auto& value = part.*member;
    using Value = std::remove_reference_t<decltype(value)>;
    if constexpr (Part<Value>) {
      collect(value, prefix + name + ".", fields);
    } else if constexpr (IsOptional<Value>::value) {
      if constexpr (Part<typename Value::value_type>) {
        if (value) collect(*value, prefix + name + ".", fields);
      } else {
        fields.push_back({prefix + name, reference(value)});
      }
    } else {
      fields.push_back({prefix + name, reference(value)});
    }
  });
}

// Walks to `path`; `make` fills absent parts on the way, else they end the walk.
template <class T>
std::optional<FieldValue> walk(T& part, std::string_view path, bool make) {
  const size_t dot = path.find('.');
  const std::string_view first = path.substr(0, dot);
  std::optional<FieldValue> found;
  members(static_cast<T*>(nullptr), [&](const char* name, auto member) {
    if (first != name) return;
    auto& value = part.*member;
    using Value = std::remove_reference_t<decltype(value)>;
    if constexpr (Part<Value>) {
      if (dot != path.npos) found = walk(value, path.substr(dot + 1), make);
    } else if constexpr (IsOptional<Value>::value) {
      if constexpr (Part<typename Value::value_type>) {
        if (dot == path.npos || (!value && !make)) return;
        if (!value) value.emplace();
        found = walk(*value, path.substr(dot + 1), make);
      } else if (dot == path.npos) {
        found = reference(value);
      }
    } else if (dot == path.npos) {
      found = reference(value);
    }
  });
  return found;
}

template <class Number>
bool parse_number(std::string_view text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

struct TextSetter {
  std::string_view text;

  bool operator()(std::string* value) const {
    *value = text;
    return true;
  }
  bool operator()(bool* value) const {
    *value = text == "true";
    return text == "true" || text == "false";
  }
  bool operator()(int64_t* value) const { return parse_number(text, *value); }
  bool operator()(double* value) const { return parse_number(text, *value); }
  template <class Number>
  bool operator()(std::optional<Number>* value) const {
    if (text == "none") {
      value->reset();
      return true;
    }
    return parse_number(text, value->emplace());
  }
  template <class Number>
  bool operator()(std::vector<Number>* values) const {
    values->clear();
    if (text == "none") return true;
    for (const std::string& one : split(text, ',')) {
      if (!parse_number(one, values->emplace_back())) return false;
    }
    return true;
  }
  bool operator()(const WordField& field) const { return field.set(text); }
  bool operator()(const WordListField& field) const {
    return field.set(text == "none" ? std::vector<std::string>() : split(text, ','));
  }
};

struct TextGetter {
  std::string operator()(const std::string* value) const { return *value; }
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  template <class Number>
  std::string operator()(const Number* value) const {
    return fmt::format("{}", *value);
  }
  template <class Number>
  std::string operator()(const std::optional<Number>* value) const {
    return *value ? fmt::format("{}", **value) : "none";
  }
  template <class Number>
  std::string operator()(const std::vector<Number>* values) const {
    return values->empty() ? "none" : fmt::format("{}", fmt::join(*values, ","));
  }
  std::string operator()(const WordField& field) const { return field.get(); }
  std::string operator()(const WordListField& field) const {
    const auto words = field.get();
    return words.empty() ? "none" : join(words, ",");
  }
};

}  // namespace

std::vector<SpecField> fields_of(ModelSpec& spec) {
  std::vector<SpecField> fields;
  collect(spec, "", fields);
  return fields;
}

std::optional<FieldValue> field_at(ModelSpec& spec, std::string_view path) {
  return walk(spec, path, /*make=*/true);
}

bool has_field(const ModelSpec& spec, std::string_view path) {
  // Nothing is changed through it, nor made on the way.
  return walk(const_cast<ModelSpec&>(spec), path, /*make=*/false).has_value();
}

void set_field(ModelSpec& spec, std::string_view path, std::string_view text) {
  const auto field = field_at(spec, path);
  if (!field)
    throw ConfigError("model", fmt::format("expected a switch of a model, got '{}'", path));
  if (!std::visit(TextSetter{text}, *field)) {
    throw ConfigError("model", fmt::format("expected another value for {}, got '{}'", path, text));
  }
}

std::string field_text(const FieldValue& value) { return std::visit(TextGetter{}, value); }

}  // namespace qianli::model
