// From the keys and tensors of a GGUF file to a model.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/convert/gguf/layer_lists.h"
#include "qianli/convert/gguf/rotary.h"
#include "qianli/convert/gguf/spec.h"
#include "qianli/convert/gguf/spec_numbers.h"
#include "qianli/model/family.h"

namespace qianli::convert {
namespace {

using model::MixerKind;
using model::ModelSpec;
using model::QkNorm;
using model::RouterScore;

constexpr int64_t kMaxLayers = 100000, kMaxHeadDim = 65536, kMaxSize = INT32_MAX;

class Reader {
 public:
  Reader(const GgufSight& sight, const std::string& name)
      : sight_(sight), keys_(sight.keys), prefix_(name + "."), architecture_(choose(name)) {}

  ModelSpec spec() {
    spec_ = model::find_family(family_).traits;
    spec_.mtp.num_layers = architecture_.heads_ahead ? number_or("nextn_predict_layers", 0) : 0;
    spec_.num_layers = number("block_count") - spec_.mtp.num_layers;
    if (spec_.num_layers < 1 || spec_.num_layers > kMaxLayers) {
      keys_.refuse(prefix_ + "block_count", "a number of layers");
    }
    spec_.hidden_size = number("embedding_length");
    spec_.max_position_embeddings = number("context_length");
    spec_.ffn_hidden_size = number_or("feed_forward_length", 0) / architecture_.feed_forward_factor;
    const bool rms = spec_.norm == model::NormKind::kRmsNorm;
    spec_.norm_eps = real(rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon")
                         .value_or(1e-5);
    vocabulary();
    attention();
    if (spec_.head_dim > kMaxHeadDim) keys_.refuse(prefix_ + "attention.key_length", "a size");
    states();
    if (spec_.position == model::PositionKind::kRotary) read_rotary_keys(sight_, prefix_, spec_);
    window();
    mixture();
    biases();
    read_multipliers(keys_, prefix_, spec_);
    read_token_ids(keys_, spec_);
    spec_.validate();
    return std::move(spec_);
  }

 private:
  // Where an architecture is laid out in two ways or holds several families, what is there decides.
  const GgufArchitecture& choose(const std::string& name) {
    const bool fused = has("blk.0.attn_qkv.weight");
    const GgufArchitecture* found = nullptr;
    for (const GgufArchitecture& one : gguf_architectures()) {
      if (one.name == name && (!found || one.fused_qkv == fused)) found = &one;
    }
    if (!found) {
      throw CheckpointError("convert",
                            fmt::format("{}: expected an architecture of a known family, got '{}'",
                                        keys_.source(), name.substr(0, 100)));
    }
    family_ = found->families.front();
    if (name == "llama" && number_or("expert_count", 0) > 0) family_ = "mixtral";
    if (name == "deepseek2" && number_or("expert_gating_func", 1) == 2) family_ = "deepseek_v3";
    return *found;
  }

  bool has(const std::string& tensor) const { return sight_.has(tensor); }
  bool in_some_layer(const std::string& tensor) const {
    for (int64_t l = 0; l < spec_.num_layers; ++l) {
      if (has(fmt::format("blk.{}.{}", l, tensor))) return true;
    }
    return false;
  }
  // A size or count; more than any model has is refused before anything is computed from it.
  std::optional<int64_t> size(const std::string& key) const {
    const auto value = keys_.integer(prefix_ + key);
    if (value && (*value < 0 || *value > kMaxSize)) keys_.refuse(prefix_ + key, "a size");
    return value;
  }
  int64_t number(const std::string& key) const {
    const auto value = size(key);
    if (!value) keys_.refuse(prefix_ + key, "a number");
    return *value;
  }
  int64_t number_or(const std::string& key, int64_t otherwise) const {
    return size(key).value_or(otherwise);
  }
  std::optional<double> real(const std::string& key) const { return keys_.number(prefix_ + key); }

  void vocabulary() {
    const auto rows = keys_.integer(prefix_ + "vocab_size");
    spec_.vocab_size = rows ? *rows : sight_.rows("token_embd.weight");
    spec_.tie_word_embeddings = !has("output.weight");
  }

  void attention() {
    if (architecture_.lists_per_layer) {
      read_layer_lists(keys_, prefix_, spec_);
    } else {
      spec_.num_attention_heads = number_or("attention.head_count", 0);
      if (spec_.num_attention_heads == 0) return;
      spec_.num_query_groups = number_or("attention.head_count_kv", spec_.num_attention_heads);
    }
    if (spec_.latent_attention) return latent();
    spec_.head_dim =
        number_or("attention.key_length", spec_.hidden_size / spec_.num_attention_heads);
    if (number_or("attention.value_length", spec_.head_dim) != spec_.head_dim) {
      keys_.refuse(prefix_ + "attention.value_length", "values as long as keys");
    }
    if (spec_.qk_norm != QkNorm::kNone || spec_.family == "cohere") {
      const QkNorm kind = spec_.family == "cohere" ? QkNorm::kLayerNormPerHead : spec_.qk_norm;
      spec_.qk_norm = in_some_layer("attn_q_norm.weight") ? kind : QkNorm::kNone;
    } else if (in_some_layer("attn_q_norm.weight")) {
      spec_.qk_norm = QkNorm::kHead;
    }
    if (const auto cap = real("attn_logit_softcapping"); cap && *cap > 0) {
      spec_.attention_softcap = cap;
    }
    if (const auto clip = real("attention.clamp_kqv"); clip && *clip > 0) spec_.qkv_clip = clip;
    score_scale();
    if (spec_.family == "baichuan" &&
        (real("attention.max_alibi_bias").value_or(0) > 0 || spec_.num_layers == 40)) {
      spec_.position = model::PositionKind::kAlibi;  // 13B, which llama.cpp knows by its layers
    }
  }

  // Gemma's, where the largest ones of a generation go by the width of the model.
  void score_scale() {
    const bool gemma2 = spec_.family == "gemma2", gemma3 = spec_.family == "gemma3_text";
    if (!gemma2 && !gemma3) return;
    spec_.query_pre_attn_scalar = static_cast<double>(spec_.head_dim);
    if (spec_.num_layers == (gemma2 ? 46 : 62)) {
      spec_.query_pre_attn_scalar =
          static_cast<double>(spec_.hidden_size / spec_.num_attention_heads);
    }
    const auto scale = real("attention.scale");
    if (!scale || *scale <= 0) return;
    const double scalar = 1.0 / (*scale * *scale);
    const bool whole = std::abs(scalar - std::round(scalar)) < 1e-4 * scalar;
    spec_.query_pre_attn_scalar = whole ? std::round(scalar) : scalar;
  }

  void latent() {
    model::LatentAttention& mla = *spec_.latent_attention;
    const bool split =
        has("blk.0.attn_k_b.weight") || keys_.integer(prefix_ + "attention.key_length_mla");
    const std::string own = split ? "_mla" : "";
    if (architecture_.split_latent) spec_.num_query_groups = spec_.num_attention_heads;
    spec_.head_dim = number("attention.key_length" + own);
    mla.qk_rope_head_dim = number("rope.dimension_count");
    mla.qk_nope_head_dim = spec_.head_dim - mla.qk_rope_head_dim;
    mla.v_head_dim = number_or("attention.value_length" + own, mla.qk_nope_head_dim);
    mla.kv_lora_rank = number("attention.kv_lora_rank");
    mla.q_lora_rank = size("attention.q_lora_rank");
    if (mla.q_lora_rank == 0) mla.q_lora_rank.reset();
    if (!spec_.indexer) return;
    spec_.indexer->num_heads = number("attention.indexer.head_count");
    spec_.indexer->head_dim = number("attention.indexer.key_length");
    spec_.indexer->top_k = number("attention.indexer.top_k");
  }

  void states() {
    if (spec_.family == "qwen3_next") {
      model::GatedDeltaNet net{.num_key_heads = number("ssm.group_count"),
                               .num_value_heads = number("ssm.time_step_rank"),
                               .key_head_dim = number("ssm.state_size"),
                               .value_head_dim = number("ssm.inner_size"),
                               .conv_kernel = number("ssm.conv_kernel")};
      if (net.num_value_heads < 1)
        keys_.refuse(prefix_ + "ssm.time_step_rank", "a positive number");
      net.value_head_dim /= net.num_value_heads;
      const int64_t interval = number_or("full_attention_interval", 4);
      if (interval < 1 || interval > kMaxLayers) {
        keys_.refuse(prefix_ + "full_attention_interval", "a number of layers");
      }
      spec_.layer_pattern.assign(static_cast<size_t>(interval), MixerKind::kGatedDeltaNet);
      spec_.layer_pattern.back() = MixerKind::kAttention;
      if (interval > 1) spec_.gated_delta_net = net;
    }
    if (!spec_.mamba2) return;
    model::Mamba2& mamba = *spec_.mamba2;
    const int64_t heads = number("ssm.time_step_rank");
    if (heads < 1) keys_.refuse(prefix_ + "ssm.time_step_rank", "a positive number");
    mamba.conv_kernel = number("ssm.conv_kernel");
    mamba.state_size = number("ssm.state_size");
    mamba.num_groups = number_or("ssm.group_count", 1);
    mamba.inner_size = number("ssm.inner_size");
    mamba.head_dim = mamba.inner_size / heads;
    mamba.conv_bias = has("blk.0.ssm_conv1d.bias");
  }

  void window() {
    if (!architecture_.window_period) return;
    const int64_t window = number_or("attention.sliding_window", 0);
    if (window == 0) return;
    const int64_t period =
        number_or("attention.sliding_window_pattern", *architecture_.window_period);
    if (period < 0 || period > kMaxLayers) {
      keys_.refuse(prefix_ + "attention.sliding_window_pattern", "a number of layers");
    }
    spec_.sliding_window = window;
    spec_.layer_pattern.assign(static_cast<size_t>(std::max<int64_t>(period, 1)),
                               MixerKind::kSlidingAttention);
    if (period > 0) spec_.layer_pattern.back() = MixerKind::kAttention;
  }

  void mixture() {
    const int64_t experts = number_or("expert_count", 0);
    if (experts == 0) return;
    if (!spec_.moe) spec_.moe.emplace();
    model::MixtureOfExperts& moe = *spec_.moe;
    const std::string& family = spec_.family;
    moe.num_experts = experts;
    moe.top_k = number("expert_used_count");
    moe.ffn_hidden_size = number_or("expert_feed_forward_length", spec_.ffn_hidden_size);
    const int64_t shared = number_or("expert_shared_count", 0);
    if (shared < 0 || shared > 65536 || moe.ffn_hidden_size > INT32_MAX) {
      keys_.refuse(prefix_ + "expert_shared_count", "a number of experts");
    }
    moe.shared_ffn_hidden_size =
        number_or("expert_shared_feed_forward_length", shared * moe.ffn_hidden_size);
    moe.shared_gate = in_some_layer("ffn_gate_inp_shexp.weight");
    moe.first_k_dense = number_or("leading_dense_block_count", 0);
    for (int64_t l = moe.first_k_dense; architecture_.lists_per_layer && l < spec_.num_layers; ++l)
      if (!has(fmt::format("blk.{}.ffn_gate_inp.weight", l))) moe.dense_layers.push_back(l);
    // What llama.cpp does without being told.
    const bool usual = moe.normalize_top_k || family == "qwen3_moe" || family == "qwen3_next" ||
                       family == "minicpm" || family == "dbrx";
    moe.normalize_top_k = keys_.flag(prefix_ + "expert_weights_norm").value_or(usual);
    if (const auto scale = real("expert_weights_scale"); scale && *scale != 0) {
      moe.scaling_factor = *scale;
    }
    const int64_t gating = number_or("expert_gating_func", 0);
    if (gating == 1) moe.score = RouterScore::kSoftmax;
    if (gating == 2) moe.score = RouterScore::kSigmoid;
    moe.num_groups = std::max<int64_t>(1, number_or("expert_group_count", 1));
    moe.topk_groups = std::max<int64_t>(1, number_or("expert_group_used_count", 1));
    moe.selection_bias = in_some_layer("exp_probs_b.bias");
    moe.router_bias = in_some_layer("ffn_gate_inp.bias");
    moe.expert_bias = in_some_layer("ffn_down_exps.bias");
  }

  void biases() {
    const auto any = [&](std::initializer_list<const char*> names) {
      return std::ranges::any_of(names, [&](const char* name) { return in_some_layer(name); });
    };
    spec_.qkv_bias = any({"attn_q.bias", "attn_qkv.bias", "attn_q_a.bias", "attn_kv_a_mqa.bias"});
    spec_.attention_out_bias = any({"attn_output.bias"});
    spec_.mlp_bias = any({"ffn_up.bias"});
    spec_.attention_sinks = any({"attn_sinks.weight"});
    spec_.norm_bias = has("output_norm.bias");
    if (spec_.family == "falcon" && has("blk.0.attn_norm_2.weight")) {
      spec_.norm_placement = model::NormPlacement::kParallelTwo;
    }
    spec_.output_bias = has("output.bias");
  }

  const GgufSight& sight_;
  const GgufKeys& keys_;
  const std::string prefix_;
  std::string family_;
  const GgufArchitecture& architecture_;
  ModelSpec spec_;
};

}  // namespace

ModelSpec spec_from_keys(const GgufSight& sight) {
  const auto name = sight.keys.text("general.architecture");
  if (!name) sight.keys.refuse("general.architecture", "a name");
  return Reader(sight, *name).spec();
}

}  // namespace qianli::convert
