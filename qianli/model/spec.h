// A model as data. One decoder reads these switches; a family is a value of this struct and a
// mapping from its config.json. Units are counts of elements unless the name says otherwise.
// Formulas: x is the residual stream, n a norm, h hidden size, a heads, g key/value heads, d head
// size.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qianli::model {

enum class NormKind { kRmsNorm, kLayerNorm };

enum class NormPlacement {
  kPre,          // x += attention(n(x)); x += mlp(n'(x))
  kSandwich,     // x += m(attention(n(x))); x += m'(mlp(n'(x)))       Gemma 2 and 3, GLM-4-0414,
                 // Grok-1
  kParallel,     // x += attention(n(x)) + mlp(n(x))                   Falcon-7B, Command-R
  kParallelTwo,  // x += attention(n(x)) + mlp(n'(x))                  Falcon-40B
};

// Of queries and keys; RMSNorm unless said otherwise.
enum class QkNorm {
  kNone,
  kHead,              // over each head, one [d] weight for all heads, before rotary positions
  kHeadAfterRotary,   // the same, after                                Hunyuan-Large
  kProjection,        // over all heads together, weight [a d] and [g d] MiniMax-M2
  kLayerNormPerHead,  // LayerNorm over each head, weight [a, d] and [g, d], no bias  Command-R+
};

enum class PositionKind { kRotary, kLearned, kAlibi, kNone };

enum class RopeScalingKind {
  kNone,
  kLinear,
  kDynamic,   // base grows with the length of the sequence beyond max_position_embeddings
  kNtkAlpha,  // base * alpha^(r / (r - 2)), at every length             Hunyuan-Large
  kLlama3,
  kYarn,
  kLongrope,  // one factor per pair, short and long                    Phi-3.5, MiniCPM3
};

// The rules of `rope_scaling` in config.json; fields that a kind does not use keep their defaults.
struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 1.0;                 // ntk-alpha: alpha
  int64_t original_max_positions = 0;  // pre-training maximum (llama3, yarn, longrope)
  double low_freq_factor = 1.0;        // llama3
  double high_freq_factor = 4.0;       // llama3
  double beta_fast = 32.0;             // yarn
  double beta_slow = 1.0;              // yarn
  // yarn and longrope: amplitude of cos and sin; absent: the kind's own rule
  std::optional<double> attention_factor;
  bool truncate = true;  // yarn: round the correction range to whole dimensions
  // yarn of DeepSeek, with M(s) = 0.1 s ln(factor) + 1: amplitude M(mscale) / M(mscale_all_dim),
  // and the softmax scale of MLA grows by M(mscale_all_dim)^2
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  // longrope: one factor per rotated pair; short up to original_max_positions, long beyond
  std::vector<double> short_factor;
  std::vector<double> long_factor;
  std::optional<double> short_mscale;
  std::optional<double> long_mscale;

  bool operator==(const RopeScaling&) const = default;
};

struct Rope {
  double base = 10000.0;
  double fraction = 1.0;  // the first int(d * fraction) dimensions of a head are rotated, the last
                          // ones with compressed_attention
  // Pairs (2i, 2i + 1) instead of (i, i + r/2)                         GLM-4, Command-R, DeepSeek
  bool interleaved = false;
  RopeScaling scaling;

  bool operator==(const Rope&) const = default;
};

enum class Activation {
  kSilu,
  kGelu,
  kGeluTanh,
  kRelu,
  kRelu2,  // relu(x)^2
  // (up + 1) * gate * sigmoid(1.702 gate), gate and up clamped to the limit     gpt-oss
  kClampedSwiglu,
};

enum class AttentionGate {
  kNone,
  kElement,  // o * sigmoid(gate), gate [a d] beside the queries of each head   Qwen3-Next
  kHead,     // o_head * sigmoid(n Wg^T)_head                                   Step-3.5
};

// What mixes positions in a layer.
enum class MixerKind {
  kAttention,
  kSlidingAttention,
  kSparseCompressed,  // the window, and of the keys compressed a little the best few   DeepSeek-V4
  kHeavyCompressed,   // the window, and all keys compressed a lot                      DeepSeek-V4
  kGatedDeltaNet,
  kMamba2,
  kNone
};
enum class FeedForwardKind { kDense, kMoe, kNone };

// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434). head_dim is nope + rope.
struct LatentAttention {
  std::optional<int64_t> q_lora_rank;  // absent: queries straight from x
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  double q_lora_scale = 1.0;   // of the normed query latent (LongCat: sqrt(h / q_lora_rank))
  double kv_lora_scale = 1.0;  // of the normed key/value latent
  double norm_eps = 1e-6;      // of the norms of the latents, whatever the others have

  bool operator==(const LatentAttention&) const = default;
};

// Attention to one wide key, which is its own value, for all query heads (DeepSeek-V4). Layers see
// a window of the tokens' keys, and by their kind keys into which so many tokens each are
// compressed. Queries come from a latent, outputs of groups of heads go through one each.
struct CompressedAttention {
  int64_t q_lora_rank = 0;
  int64_t output_groups = 0;     // of heads
  int64_t output_lora_rank = 0;  // of each group
  int64_t sparse_ratio = 4;      // tokens to a key of kSparseCompressed; neighbours overlap
  int64_t heavy_ratio = 128;     // tokens to a key of kHeavyCompressed

  bool operator==(const CompressedAttention&) const = default;
};

// A residual stream of several rows per token, mixed by matrices that the token itself gives: each
// block reads a weighted sum of the rows, and its output is added to them with weights, while the
// rows are mixed by a matrix made doubly stochastic (Xie et al., arXiv:2512.24880).
struct HyperConnections {
  int64_t streams = 4;
  int64_t sinkhorn_iterations = 20;
  double eps = 1e-6;  // of the weights and of Sinkhorn's divisions

  bool operator==(const HyperConnections&) const = default;
};

// Chooses the keys that each query of a latent attention sees (DeepSeek-V3.2), or the compressed
// keys of kSparseCompressed (DeepSeek-V4).
struct Indexer {
  int64_t num_heads = 0;
  int64_t head_dim = 0;
  int64_t top_k = 0;
  // Layers with max(l + 1 - skip, 0) % frequency == 0 own an indexer, the others reuse the choice
  // of the last one that does.
  int64_t frequency = 1;
  int64_t skip = 0;
  bool interleaved = false;  // its rotary pairs are (2i, 2i + 1) (GLM-5)
  double loss_coeff = 0.0;   // of the loss that trains it; 0: no gradient reaches it

  bool operator==(const Indexer&) const = default;
};

enum class RouterScore {
  kSoftmax,      // over all experts, before the choice
  kTopKSoftmax,  // over the chosen experts only
  kSigmoid,
  kSqrtSoftplus,  // sqrt(softplus(z))                                  DeepSeek-V4
  kSparseMixer,   // two picks, each with its own masked softmax         Phi-3.5-MoE
};
// Score of a group of experts, of which the best `topk_groups` stay.
enum class GroupScore { kMax, kTopTwoSum };
// In which the router computes, whatever the type of the model; float64 models use float64 always.
enum class RouterDtype { kFloat32, kFloat64 };
// Which tokens an expert keeps when more chose it than it takes.
enum class TokenDropPolicy {
  kProbs,     // those with the largest weights, of equal ones the earlier
  kPosition,  // the earliest
};

struct MixtureOfExperts {
  int64_t num_experts = 0;
  int64_t top_k = 0;
  int64_t ffn_hidden_size = 0;         // of one expert
  int64_t shared_ffn_hidden_size = 0;  // of all shared experts together; 0: none
  bool shared_gate = false;            // shared output * sigmoid(x wg^T)
  int64_t num_zero_experts = 0;        // behind the real ones; they return their input   LongCat

  RouterScore score = RouterScore::kSoftmax;
  bool normalize_top_k = false;  // weights divided by their sum (+ 1e-20 for sigmoid)
  double scaling_factor = 1.0;   // of the weights
  int64_t num_groups = 1;
  int64_t topk_groups = 1;
  GroupScore group_score = GroupScore::kTopTwoSum;
  bool selection_bias = false;  // a buffer added for the choice only (aux-free balancing)
  bool router_bias = false;     // of the router's linear
  bool expert_bias = false;     // of the experts' linears
  double sparse_mixer_epsilon = 0.01;
  RouterDtype router_dtype = RouterDtype::kFloat32;
  // As ModelSpec::activation_limit, of the routed experts; empty: that one         Step-3.5
  std::vector<double> activation_limit;

  // Layer l is MoE when l >= first_k_dense, (l - offset) % layer_frequency == 0 and it is not
  // listed.
  int64_t first_k_dense = 0;
  int64_t layer_frequency = 1;
  int64_t layer_offset = 0;
  std::vector<int64_t> dense_layers;
  // The first layers take the experts of a token from a table of all tokens; the router weighs them
  // (DeepSeek-V4).
  int64_t num_hash_layers = 0;

  // Layer 2 i runs its dense MLP and, beside it, the experts on the same input; their output joins
  // the stream at the end of layer 2 i + 1 (LongCat, where those two are one layer).
  bool shortcut = false;

  // Training. Coefficients of the balancing losses; 0: off.
  double aux_loss_coeff = 0.0;           // over the tokens of a microbatch (Switch)
  double sequence_aux_loss_coeff = 0.0;  // per sequence
  double device_aux_loss_coeff = 0.0;    // DeepSeek-V2: over groups of experts
  double communication_aux_loss_coeff = 0.0;
  double z_loss_coeff = 0.0;
  // Experts are chosen from exp(logits), balanced over tokens and experts, instead of the scores.
  bool sinkhorn = false;
  double bias_update_rate = 1e-3;         // of the selection bias, once per step
  double input_jitter = 0.0;              // x * U(1 - e, 1 + e)
  std::optional<double> capacity_factor;  // an expert takes ceil(factor k T / E) tokens at most
  TokenDropPolicy token_drop_policy = TokenDropPolicy::kProbs;
  bool pad_to_capacity = false;

  bool operator==(const MixtureOfExperts&) const = default;
};

// Gated delta rule (Yang et al., arXiv:2412.06464).
struct GatedDeltaNet {
  int64_t num_key_heads = 0;
  int64_t num_value_heads = 0;
  int64_t key_head_dim = 0;
  int64_t value_head_dim = 0;
  int64_t conv_kernel = 4;

  int64_t key_size() const { return num_key_heads * key_head_dim; }
  int64_t value_size() const { return num_value_heads * value_head_dim; }
  bool operator==(const GatedDeltaNet&) const = default;
};

// State-space duality (Dao and Gu, arXiv:2405.21060).
struct Mamba2 {
  int64_t state_size = 128;
  int64_t head_dim = 64;
  int64_t num_groups = 1;
  int64_t inner_size = 0;  // heads * head_dim
  int64_t conv_kernel = 4;
  int64_t chunk_size = 256;
  bool conv_bias = true;
  bool norm_before_gate = false;

  int64_t num_heads() const { return inner_size / head_dim; }
  bool operator==(const Mamba2&) const = default;
};

// Multi-token prediction (DeepSeek-V3, arXiv:2412.19437).
struct MultiTokenPrediction {
  int64_t num_layers = 0;
  bool after_final_norm = false;  // takes the hidden states behind the final norm (Ling)
  double loss_scaling_factor = 0.1;

  bool operator==(const MultiTokenPrediction&) const = default;
};

// What layer l is, worked out from the patterns below.
struct LayerSpec {
  MixerKind mixer = MixerKind::kAttention;
  FeedForwardKind feed_forward = FeedForwardKind::kDense;
  int64_t window = 0;          // a query sees the last `window` positions, itself included; 0: all
  const Rope* rope = nullptr;  // null: no rotary positions in this layer
  bool shares_key_value = false;  // takes the key and value projections of the layer before
  bool owns_indexer = false;
  int64_t compression = 0;       // tokens to one compressed key; 0: it has none
  bool routes_by_token = false;  // its experts come from a table
  bool shortcut_moe = false;  // starts a mixture that joins the stream at the end of the next layer
  int64_t num_heads = 0;      // of queries; 0: no attention
  int64_t num_groups = 0;     // of keys and values
  int64_t head_dim = 0;
  double activation_limit = 0;         // of the MLP or the shared experts; 0: none
  double expert_activation_limit = 0;  // of the routed experts; 0: none

  bool has_attention() const {
    return mixer == MixerKind::kAttention || mixer == MixerKind::kSlidingAttention ||
           is_compressed();
  }
  bool is_compressed() const {
    return mixer == MixerKind::kSparseCompressed || mixer == MixerKind::kHeavyCompressed;
  }
  int64_t query_size() const { return num_heads * head_dim; }
  int64_t key_value_size() const { return num_groups * head_dim; }
};

struct ModelSpec {
  std::string family;  // a key of the family table: gpt2, llama, mistral, qwen2, qwen3, …
  int64_t num_layers = 0;
  int64_t hidden_size = 0;
  int64_t ffn_hidden_size = 0;  // width of ONE branch of a gated MLP
  int64_t num_attention_heads = 0;
  int64_t num_query_groups = 0;  // key/value heads
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;

  NormKind norm = NormKind::kRmsNorm;
  NormPlacement norm_placement = NormPlacement::kPre;
  double norm_eps = 1e-5;
  bool norm_bias = false;
  bool norm_zero_centered =
      false;                    // weights are stored as the difference from 1 (Gemma, Qwen3-Next)
  bool embedding_norm = false;  // right after the embedding (Bloom)
  QkNorm qk_norm = QkNorm::kNone;

  PositionKind position = PositionKind::kRotary;
  Rope rope;
  std::optional<Rope> sliding_rope;  // of layers with a window, where it differs (Gemma 3)
  bool rotary_on_sliding_layers_only = false;  // the others have no positions (Command-R7B)
  // Repeats over the layers: whether a layer has rotary positions; empty: every one has.
  std::vector<bool> rotary_pattern;

  // Repeats over the layers; empty: the same everywhere, kSlidingAttention with a window and
  // kAttention without.
  std::vector<MixerKind> layer_pattern;
  // Repeats likewise, for stacks whose layers are a mixer or an MLP alone (Mamba-2 hybrids); empty:
  // every layer has a feed-forward block.
  std::vector<bool> feed_forward_pattern;
  // Of the kSlidingAttention layers, and of the compressed ones: their window. Where they differ
  // from the others' the heads of queries and those of keys and values (Step-3.5).
  std::optional<int64_t> sliding_window;
  std::optional<int64_t> sliding_num_attention_heads;
  std::optional<int64_t> sliding_num_query_groups;

  bool gated_mlp = true;
  Activation activation = Activation::kSilu;
  // The gate is clamped from above, up to both sides. Repeats over the layers: one number for all,
  // or one for each; 0, or empty: none.
  std::vector<double> activation_limit;
  bool limit_before_activation = false;  // the gate is clamped first, not what comes of it
  bool qkv_bias = false;
  bool attention_out_bias = false;
  bool mlp_bias = false;
  bool output_bias = false;  // of the output layer
  bool tie_word_embeddings = false;

  std::optional<double> query_pre_attn_scalar;  // scores are scaled by its root instead of d's
  std::optional<double> attention_softcap;      // c tanh(score / c)
  std::optional<double> final_logit_softcap;
  std::optional<double> qkv_clip;
  bool attention_sinks = false;  // one learned logit per head in the softmax's denominator
  AttentionGate attention_gate = AttentionGate::kNone;
  int64_t key_value_share_factor =
      1;  // of every so many layers the first one's keys and values serve all

  double embedding_multiplier = 1.0;  // rounded to the activations' type
  double residual_multiplier = 1.0;   // of both branches of a layer
  double hidden_divisor = 1.0;        // of the final hidden states, before the output layer
  double logits_multiplier = 1.0;
  bool normalized_output = false;  // rows of the output layer's weight have length 1 (Baichuan2)

  std::optional<LatentAttention>
      latent_attention;  // replaces the attention of all attention layers
  std::optional<CompressedAttention> compressed_attention;  // likewise
  std::optional<Indexer> indexer;
  std::optional<HyperConnections> hyper_connections;
  std::optional<MixtureOfExperts> moe;
  std::optional<GatedDeltaNet> gated_delta_net;
  std::optional<Mamba2> mamba2;
  MultiTokenPrediction mtp;

  double init_std = 0.02;

  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> pad_token_id;

  int64_t value_head_dim() const {
    return latent_attention ? latent_attention->v_head_dim : head_dim;
  }

  // How many dimensions of a head `rule` rotates: the first ones, the last ones of compressed
  // attention, or the separate slice of latent attention.
  int64_t rotary_size(const Rope& rule) const {
    if (latent_attention) return latent_attention->qk_rope_head_dim;
    return static_cast<int64_t>(static_cast<double>(head_dim) * rule.fraction);
  }

  // Valid for 0 <= l < num_layers; layers behind the last one (multi-token prediction) are like it,
  // with an indexer of their own where the model has indexers.
  LayerSpec layer(int64_t l) const;
  // Scale of the attention scores, before the softmax.
  double attention_scale() const;

  // Throws ConfigError where sizes contradict each other or are absurd. Every product of sizes of a
  // validated spec, up to its count of parameters, fits in int64_t.
  void validate() const;

  bool operator==(const ModelSpec&) const = default;
};

// The fields in which two specs differ: "norm_eps: 1e-06 and 1e-05", one line each.
std::vector<std::string> differences(const ModelSpec& a, const ModelSpec& b);

std::string to_string(NormKind kind);
std::string to_string(NormPlacement placement);
std::string to_string(QkNorm kind);
std::string to_string(PositionKind kind);
std::string to_string(Activation activation);
std::string to_string(RopeScalingKind kind);
std::string to_string(MixerKind kind);
std::string to_string(FeedForwardKind kind);
std::string to_string(RouterScore score);
std::string to_string(GroupScore score);
std::string to_string(RouterDtype dtype);
std::string to_string(TokenDropPolicy policy);
std::string to_string(AttentionGate gate);

// Model FLOPs of one optimizer step over `sequences` of `sequence_length`, forward and backward,
// causal attention counted half (Megatron-LM's num_floating_point_operations); a sliding window
// counts what it sees, a mixture its chosen and shared experts.
double training_flops(const ModelSpec& spec, int64_t sequences, int64_t sequence_length);
// Forward only, for one token that sees `context_length` positions, itself included.
double forward_flops_per_token(const ModelSpec& spec, int64_t context_length);

}  // namespace qianli::model
