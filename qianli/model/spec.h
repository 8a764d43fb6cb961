// A model as data. One decoder reads these switches; a family is a value of this struct and a
// mapping from its config.json. Units are counts of elements unless the name says otherwise.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qianli::model {

enum class NormKind { kRmsNorm, kLayerNorm };
enum class PositionKind { kRotary, kLearned };
enum class Activation { kSilu, kGelu, kGeluTanh, kRelu };
enum class RopeScalingKind { kNone, kLinear, kDynamic, kLlama3, kYarn };

// The rules of `rope_scaling` in config.json; fields that a kind does not use keep their defaults.
struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 1.0;
  int64_t original_max_positions = 0;  // pre-training maximum (llama3, yarn)
  double low_freq_factor = 1.0;        // llama3
  double high_freq_factor = 4.0;       // llama3
  double beta_fast = 32.0;             // yarn
  double beta_slow = 1.0;              // yarn
  // yarn: amplitude of cos and sin; absent: 0.1 ln(factor) + 1
  std::optional<double> attention_factor;
  bool truncate = true;  // yarn: round the correction range to whole dimensions

  bool operator==(const RopeScaling&) const = default;
};

struct ModelSpec {
  std::string family;  // a key of the family table: gpt2, llama, mistral, qwen2, qwen3
  int64_t num_layers = 0;
  int64_t hidden_size = 0;
  int64_t ffn_hidden_size = 0;  // width of ONE branch of a gated MLP
  int64_t num_attention_heads = 0;
  int64_t num_query_groups = 0;  // key/value heads
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;

  NormKind norm = NormKind::kRmsNorm;
  double norm_eps = 1e-5;
  bool norm_bias = false;
  bool qk_norm = false;  // RMSNorm over each query and key head, before RoPE (Qwen3)

  PositionKind position = PositionKind::kRotary;
  double rope_base = 10000.0;
  RopeScaling rope_scaling;

  bool gated_mlp = true;
  Activation activation = Activation::kSilu;
  bool qkv_bias = false;
  bool attention_out_bias = false;
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  // A query sees the last `sliding_window` positions, itself included.
  std::optional<int64_t> sliding_window;

  double init_std = 0.02;

  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> pad_token_id;

  int64_t query_size() const { return num_attention_heads * head_dim; }
  int64_t key_value_size() const { return num_query_groups * head_dim; }

  // Throws ConfigError where sizes contradict each other or are absurd. Every product of sizes of a
  // validated spec, up to its count of parameters, fits in int64_t.
  void validate() const;

  bool operator==(const ModelSpec&) const = default;
};

// The fields in which two specs differ: "norm_eps: 1e-06 and 1e-05", one line each.
std::vector<std::string> differences(const ModelSpec& a, const ModelSpec& b);

std::string to_string(NormKind kind);
std::string to_string(PositionKind kind);
std::string to_string(Activation activation);
std::string to_string(RopeScalingKind kind);

// Model FLOPs of one optimizer step over `sequences` of `sequence_length`, forward and backward,
// causal attention counted half (Megatron-LM's num_floating_point_operations); a sliding window
// counts what it sees.
double training_flops(const ModelSpec& spec, int64_t sequences, int64_t sequence_length);
// Forward only, for one token that sees `context_length` positions, itself included.
double forward_flops_per_token(const ModelSpec& spec, int64_t context_length);

}  // namespace qianli::model
