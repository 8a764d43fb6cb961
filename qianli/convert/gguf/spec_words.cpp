// From a model to the keys of a GGUF file.
#include <algorithm>
#include <cmath>

#include "qianli/convert/gguf/layer_lists.h"
#include "qianli/convert/gguf/rotary.h"
#include "qianli/convert/gguf/spec.h"
#include "qianli/model/family.h"

namespace qianli::convert {
namespace {

using model::MixerKind;
using model::ModelSpec;
using model::PositionKind;
using model::RouterScore;

constexpr double kAlibiBias = 8.0;

class Writer {
 public:
  Writer(const ModelSpec& spec, const GgufArchitecture& architecture)
      : spec_(spec),
        architecture_(architecture),
        prefix_(std::string(architecture.name) + "."),
        keys_("the GGUF file to be written") {}

  GgufKeys keys() {
    keys_.set("general.architecture", std::string(architecture_.name));
    put("block_count", spec_.num_layers + spec_.mtp.num_layers);
    put("context_length", spec_.max_position_embeddings);
    put("embedding_length", spec_.hidden_size);
    put("vocab_size", spec_.vocab_size);
    put("feed_forward_length", spec_.ffn_hidden_size * architecture_.feed_forward_factor);
    const bool rms = spec_.norm == model::NormKind::kRmsNorm;
    put(rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", spec_.norm_eps);
    // Its norms have means and biases, and llama.cpp asks for the other key all the same.
    if (architecture_.name == "phimoe") put("attention.layer_norm_rms_epsilon", spec_.norm_eps);
    attention();
    positions();
    window();
    if (spec_.moe) mixture();
    states();
    multipliers();
    if (spec_.mtp.num_layers > 0) put("nextn_predict_layers", spec_.mtp.num_layers);
    tokens();
    return std::move(keys_);
  }

 private:
  void put(const std::string& key, GgufKeys::Value value) {
    keys_.set(prefix_ + key, std::move(value));
  }
  void put_if(const std::string& key, const std::optional<double>& value) {
    if (value) put(key, GgufKeys::Value(*value));
  }

  void attention() {
    put("attention.head_count", spec_.num_attention_heads);
    if (spec_.num_attention_heads == 0) return;
    put("attention.head_count_kv", spec_.num_query_groups);
    if (spec_.latent_attention) return latent();
    put("attention.key_length", spec_.head_dim);
    put("attention.value_length", spec_.head_dim);
    put_if("attn_logit_softcapping", spec_.attention_softcap);
    put_if("attention.clamp_kqv", spec_.qkv_clip);
    if (spec_.query_pre_attn_scalar) {
      put("attention.scale", 1.0 / std::sqrt(*spec_.query_pre_attn_scalar));
    }
  }

  // DeepSeek's attention runs in the latent space there: one key head as wide as the latent and its
  // rotated part.
  void latent() {
    const model::LatentAttention& mla = *spec_.latent_attention;
    const std::string own = architecture_.split_latent ? "_mla" : "";
    put("attention.key_length" + own, spec_.head_dim);
    put("attention.value_length" + own, mla.v_head_dim);
    if (architecture_.split_latent) {
      put("attention.head_count_kv", int64_t{1});
      put("attention.key_length", mla.kv_lora_rank + mla.qk_rope_head_dim);
      put("attention.value_length", mla.kv_lora_rank);
    }
    if (mla.q_lora_rank) put("attention.q_lora_rank", *mla.q_lora_rank);
    put("attention.kv_lora_rank", mla.kv_lora_rank);
    if (!spec_.indexer) return;
    put("attention.indexer.head_count", spec_.indexer->num_heads);
    put("attention.indexer.key_length", spec_.indexer->head_dim);
    put("attention.indexer.top_k", spec_.indexer->top_k);
  }

  void positions() {
    if (spec_.position == PositionKind::kAlibi) put("attention.max_alibi_bias", kAlibiBias);
    if (spec_.position == PositionKind::kRotary) write_rotary_keys(spec_, prefix_, keys_);
  }

  bool fits(int64_t period) const {
    for (int64_t l = 0; l < spec_.num_layers; ++l) {
      const bool slides = spec_.layer(l).mixer == MixerKind::kSlidingAttention;
      if (slides != (period == 0 || l % period < period - 1)) return false;
    }
    return true;
  }

  void window() {
    if (architecture_.lists_per_layer) return write_layer_lists(spec_, prefix_, keys_);
    if (!architecture_.window_period) return;
    put("attention.sliding_window", spec_.sliding_window.value_or(0));
    if (!spec_.sliding_window || fits(*architecture_.window_period)) return;
    int64_t period = 0;  // up to the first layer that sees everything, or none
    for (int64_t l = 0; l < spec_.num_layers && period == 0; ++l) {
      if (spec_.layer(l).mixer != MixerKind::kSlidingAttention) period = l + 1;
    }
    if (fits(period)) put("attention.sliding_window_pattern", period);
  }

  void mixture() {
    const model::MixtureOfExperts& moe = *spec_.moe;
    put("expert_count", moe.num_experts);
    put("expert_used_count", moe.top_k);
    put("expert_feed_forward_length", moe.ffn_hidden_size);
    if (moe.shared_ffn_hidden_size > 0) {
      put("expert_shared_feed_forward_length", moe.shared_ffn_hidden_size);
      put("expert_shared_count",
          std::max<int64_t>(1, moe.shared_ffn_hidden_size / moe.ffn_hidden_size));
    }
    put("leading_dense_block_count", moe.first_k_dense);
    put("expert_weights_norm", moe.normalize_top_k);
    if (moe.scaling_factor != 1.0) put("expert_weights_scale", moe.scaling_factor);
    if (moe.score == RouterScore::kSoftmax) put("expert_gating_func", int64_t{1});
    if (moe.score == RouterScore::kSigmoid) put("expert_gating_func", int64_t{2});
    if (moe.num_groups > 1) {
      put("expert_group_count", moe.num_groups);
      put("expert_group_used_count", moe.topk_groups);
    }
  }

  void states() {
    if (const auto& net = spec_.gated_delta_net) {
      put("ssm.conv_kernel", net->conv_kernel);
      put("ssm.state_size", net->key_head_dim);
      put("ssm.group_count", net->num_key_heads);
      put("ssm.time_step_rank", net->num_value_heads);
      put("ssm.inner_size", net->value_size());
      int64_t interval = 1;
      while (interval < spec_.num_layers && !spec_.layer(interval - 1).has_attention()) ++interval;
      put("full_attention_interval", interval);
    }
    if (const auto& mamba = spec_.mamba2) {
      put("ssm.conv_kernel", mamba->conv_kernel);
      put("ssm.state_size", mamba->state_size);
      put("ssm.group_count", mamba->num_groups);
      put("ssm.time_step_rank", mamba->num_heads());
      put("ssm.inner_size", mamba->inner_size);
    }
  }

  // Where a family has such a number; Gemma's multiplier follows from the width.
  void multipliers() {
    const std::string& family = spec_.family;
    const bool minicpm = family.starts_with("minicpm"), grok = family == "grok-1";
    if (minicpm || grok) put("embedding_scale", spec_.embedding_multiplier);
    if (minicpm) put("residual_scale", spec_.residual_multiplier);
    if (minicpm) put("logit_scale", spec_.hidden_divisor);
    if (grok) put("attention.output_scale", spec_.attention_scale());
    if (grok || family.starts_with("cohere")) put("logit_scale", spec_.logits_multiplier);
    put_if("final_logit_softcapping", spec_.final_logit_softcap);
  }

  void tokens() {
    const auto token = [&](const char* name, std::optional<int64_t> id) {
      if (id) keys_.set(std::string("tokenizer.ggml.") + name + "_token_id", *id);
    };
    token("bos", spec_.bos_token_id);
    token("padding", spec_.pad_token_id);
    if (!spec_.eos_token_ids.empty()) token("eos", spec_.eos_token_ids[0]);
    if (spec_.eos_token_ids.size() > 1) token("eot", spec_.eos_token_ids[1]);
    if (spec_.eos_token_ids.size() > 2) token("eom", spec_.eos_token_ids[2]);
  }

  const ModelSpec& spec_;
  const GgufArchitecture& architecture_;
  const std::string prefix_;
  GgufKeys keys_;
};

}  // namespace

GgufKeys keys_of_spec(const ModelSpec& told, const GgufArchitecture& architecture) {
  return Writer(told, architecture).keys();
}

}  // namespace qianli::convert
