// The sections of a configuration, one plain struct each: defaults next to the fields, and fields()
// naming every field once. Counts are int64_t; an optional that is absent takes what `absent` says.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qianli/config/option.h"

namespace qianli::config {

// The parts of a model's switches; qianli/model/spec.h has their meaning, and the same paths.
struct RopeScalingConfig {
  std::optional<std::string> kind;
  std::optional<double> factor;
  std::optional<int64_t> original_max_positions;
  std::optional<double> low_freq_factor;
  std::optional<double> high_freq_factor;
  std::optional<double> beta_fast;
  std::optional<double> beta_slow;
  std::optional<double> attention_factor;
  std::optional<bool> truncate;
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  std::optional<std::string> short_factor;
  std::optional<std::string> long_factor;
  std::optional<double> short_mscale;
  std::optional<double> long_mscale;

  template <class Visitor>
  void fields(Visitor& v);
};

struct RopeConfig {
  std::optional<double> base;
  std::optional<double> fraction;
  std::optional<bool> interleaved;
  RopeScalingConfig scaling;

  template <class Visitor>
  void fields(Visitor& v);
};

struct LatentAttentionConfig {
  std::optional<int64_t> q_lora_rank;
  std::optional<int64_t> kv_lora_rank;
  std::optional<int64_t> qk_nope_head_dim;
  std::optional<int64_t> qk_rope_head_dim;
  std::optional<int64_t> v_head_dim;

  template <class Visitor>
  void fields(Visitor& v);
};

struct IndexerConfig {
  std::optional<int64_t> num_heads;
  std::optional<int64_t> head_dim;
  std::optional<int64_t> top_k;
  std::optional<int64_t> frequency;
  std::optional<int64_t> skip;
  std::optional<double> loss_coeff;

  template <class Visitor>
  void fields(Visitor& v);
};

struct CompressedAttentionConfig {
  std::optional<int64_t> q_lora_rank;
  std::optional<int64_t> output_groups;
  std::optional<int64_t> output_lora_rank;
  std::optional<int64_t> sparse_ratio;
  std::optional<int64_t> heavy_ratio;

  template <class Visitor>
  void fields(Visitor& v);
};

struct HyperConnectionsConfig {
  std::optional<int64_t> streams;
  std::optional<int64_t> sinkhorn_iterations;
  std::optional<double> eps;

  template <class Visitor>
  void fields(Visitor& v);
};

struct MoeConfig {
  std::optional<int64_t> num_experts;
  std::optional<int64_t> top_k;
  std::optional<int64_t> ffn_hidden_size;
  std::optional<int64_t> shared_ffn_hidden_size;
  std::optional<bool> shared_gate;
  std::optional<int64_t> num_zero_experts;
  std::optional<std::string> score;
  std::optional<bool> normalize_top_k;
  std::optional<double> scaling_factor;
  std::optional<int64_t> num_groups;
  std::optional<int64_t> topk_groups;
  std::optional<bool> selection_bias;
  std::optional<std::string> router_dtype;
  std::optional<int64_t> first_k_dense;
  std::optional<int64_t> layer_frequency;
  std::optional<std::string> dense_layers;
  std::optional<int64_t> num_hash_layers;
  std::optional<std::string> activation_limit;
  std::optional<double> aux_loss_coeff;
  std::optional<double> sequence_aux_loss_coeff;
  std::optional<double> device_aux_loss_coeff;
  std::optional<double> communication_aux_loss_coeff;
  std::optional<double> z_loss_coeff;
  std::optional<bool> sinkhorn;
  std::optional<double> bias_update_rate;
  std::optional<double> input_jitter;
  std::optional<double> capacity_factor;
  std::optional<std::string> token_drop_policy;
  std::optional<bool> pad_to_capacity;

  template <class Visitor>
  void fields(Visitor& v);
};

struct GatedDeltaNetConfig {
  std::optional<int64_t> num_key_heads;
  std::optional<int64_t> num_value_heads;
  std::optional<int64_t> key_head_dim;
  std::optional<int64_t> value_head_dim;
  std::optional<int64_t> conv_kernel;

  template <class Visitor>
  void fields(Visitor& v);
};

struct Mamba2Config {
  std::optional<int64_t> state_size;
  std::optional<int64_t> head_dim;
  std::optional<int64_t> num_groups;
  std::optional<int64_t> inner_size;
  std::optional<int64_t> conv_kernel;
  std::optional<int64_t> chunk_size;

  template <class Visitor>
  void fields(Visitor& v);
};

struct MtpConfig {
  std::optional<int64_t> num_layers;
  std::optional<double> loss_scaling_factor;

  template <class Visitor>
  void fields(Visitor& v);
};

// `model: NAME` is short for `model: {preset: NAME}`.
struct ModelConfig {
  static constexpr bool kShorthand = true;  // a scalar sets the first field

  std::string source;                // preset name, or a folder with config.json
  std::optional<bool> load_weights;  // absent: a folder loads its weights, a preset starts fresh
  // Switches that replace those of the preset or folder (qianli/model/spec.h has their meaning).
  std::optional<std::string> family;
  std::optional<int64_t> num_layers;
  std::optional<int64_t> hidden_size;
  std::optional<int64_t> ffn_hidden_size;
  std::optional<int64_t> num_attention_heads;
  std::optional<int64_t> num_query_groups;
  std::optional<int64_t> head_dim;
  std::optional<int64_t> vocab_size;
  std::optional<int64_t> max_position_embeddings;
  std::optional<std::string> norm;
  std::optional<std::string> norm_placement;
  std::optional<double> norm_eps;
  std::optional<std::string> qk_norm;
  std::optional<std::string> position;
  RopeConfig rope;
  RopeConfig sliding_rope;
  std::optional<std::string> rotary_pattern;
  std::optional<std::string> layer_pattern;
  std::optional<int64_t> sliding_window;
  std::optional<int64_t> sliding_num_attention_heads;
  std::optional<int64_t> sliding_num_query_groups;
  std::optional<bool> gated_mlp;
  std::optional<std::string> activation;
  std::optional<std::string> activation_limit;
  std::optional<bool> qkv_bias;
  std::optional<bool> attention_out_bias;
  std::optional<bool> mlp_bias;
  std::optional<bool> tie_word_embeddings;
  std::optional<double> query_pre_attn_scalar;
  std::optional<double> attention_softcap;
  std::optional<double> final_logit_softcap;
  std::optional<double> embedding_multiplier;
  std::optional<double> residual_multiplier;
  std::optional<double> logits_multiplier;
  LatentAttentionConfig latent_attention;
  CompressedAttentionConfig compressed_attention;
  IndexerConfig indexer;
  HyperConnectionsConfig hyper_connections;
  MoeConfig moe;
  GatedDeltaNetConfig gated_delta_net;
  Mamba2Config mamba2;
  MtpConfig mtp;
  std::optional<double> init_std;

  template <class Visitor>
  void fields(Visitor& v);
};

// One source of text; `PATH` is short for `{path: PATH}`.
struct DataSource {
  static constexpr bool kShorthand = true;

  std::string path;     // text, JSONL, or the prefix of a .bin/.idx pair
  double weight = 1.0;  // share of the samples, relative to the other sources

  template <class Visitor>
  void fields(Visitor& v);
  bool operator==(const DataSource&) const = default;
};

// How rows of instruction data become samples: keys of the section `data`, and options of `data
// prepare` and `data inspect` of the same names (data/instruction/configured.h).
struct InstructionConfig {
  std::string chat_template;  // a name, or `model`; "": none
  std::string format;         // "": as the rows look
  std::string handler_name;   // "": by format
  std::string map_keys;       // JSON; "": the usual columns
  std::string enable_thinking = "none";
  std::optional<std::string> default_system;  // absent: the template's
  std::string variant;
  std::string template_variables;  // JSON; "": none
  bool keep_thinking = false;
  std::string reasoning_effort;
  std::string truncation = "template";
  bool train_on_prompt = false;
  bool mask_history = false;

  template <class Visitor>
  void fields(Visitor& v);
  bool operator==(const InstructionConfig&) const = default;
};

struct DataConfig {
  std::vector<DataSource> path;
  std::optional<std::string> tokenizer;  // folder or tokenizer.json; absent: the model's folder
  int64_t sequence_length = 1024;        // tokens per sample
  std::string split = "969,30,1";        // train, validation, test: any positive proportions
  std::optional<int64_t> seed;           // filled by load: train.seed
  std::string text_key = "text";
  std::optional<bool> append_eod;  // absent: documents yes, instruction data no
  bool eod_mask_loss = false;
  bool reset_position_ids = false;
  bool reset_attention_mask = false;
  std::optional<std::string> cache_dir;        // absent: inside the run folder
  std::optional<std::string> validation_path;  // absent: the second part of `split`
  InstructionConfig instruction;               // its keys are keys of this section
  std::string packing = "none";                // none, greedy, best_fit
  std::string bad_rows = "skip";               // skip, fail

  template <class Visitor>
  void fields(Visitor& v);
};

struct TrainConfig {
  int64_t steps = 0;               // optimizer steps; this or epochs must be given to train
  int64_t epochs = 0;              // instead of steps; 0: steps are given
  int64_t micro_batch_size = 1;    // samples of one forward pass
  int64_t micro_batch_tokens = 0;  // in the place of micro_batch_size; 0: off
  std::optional<int64_t> global_batch_size;  // samples per step; filled by load: micro_batch_size
  int64_t seed = 1234;
  int64_t eval_every = 0;  // steps; 0: never
  int64_t eval_batches = 10;
  double attention_dropout = 0;
  double hidden_dropout = 0;
  double embedding_dropout = 0;
  double neftune_alpha = 0;
  std::string loss_normalization = "token";  // token, microbatch

  template <class Visitor>
  void fields(Visitor& v);
};

// Parameters whose canonical name matches take these settings instead of the general ones; the
// first group that matches wins.
struct ParameterGroup {
  std::string
      match;  // glob over the whole name (* ? [a-z]), or a regular expression in slashes: /…/
  double lr_scale = 1.0;
  std::optional<double> weight_decay;

  template <class Visitor>
  void fields(Visitor& v);
  bool operator==(const ParameterGroup&) const = default;
};

struct OptimConfig {
  std::string name = "adamw";
  double lr = 3e-4;
  double min_lr = 0.0;
  std::string lr_schedule = "cosine";  // constant, linear, cosine, wsd, inverse_sqrt
  int64_t warmup_steps = 0;
  std::optional<int64_t> decay_steps;      // filled by load: train.steps
  std::optional<int64_t> wsd_decay_steps;  // last steps of the wsd schedule, within decay_steps
  std::string wsd_decay_style = "linear";  // linear, cosine, exponential
  double weight_decay = 0.1;
  std::array<double, 2> betas = {0.9, 0.95};
  double eps = 1e-8;
  double clip_grad_norm = 1.0;  // 0: off
  std::vector<ParameterGroup> groups;

  template <class Visitor>
  void fields(Visitor& v);
};

// Sizes of the rank mesh, and how its groups share the work.
struct ParallelConfig {
  int64_t tensor = 1;
  int64_t tensor_x = 1;       // 2-D: tensor is tensor_x * tensor_y
  int64_t tensor_y = 1;       // 1: not 2-D
  int64_t tensor_slices = 1;  // in which a linear's collective and product overlap
  bool sequence = false;
  int64_t pipeline = 1;
  int64_t pipeline_chunks = 1;
  std::string schedule = "auto";
  int64_t schedule_group = 0;   // 0: as many as stages
  int64_t schedule_slices = 1;  // of a sequence
  std::string schedule_slicing = "even";
  bool detach_weight_grads = false;
  std::string recompute = "none";
  std::string layers;  // of each chunk; empty: even
  std::optional<int64_t> first_stage_layers;
  std::optional<int64_t> last_stage_layers;
  bool count_embedding = false;
  bool count_loss = false;
  std::string noop_layers;
  int64_t context = 1;
  std::string context_algorithm = "ring";
  int64_t context_ulysses = 1;
  int64_t context_window = 1;
  std::string context_kv_cache = "none";
  int64_t context_cache_interval = 0;  // layers without one between those that keep keys
  int64_t expert = 1;
  int64_t expert_tensor = 0;  // 0: as tensor
  std::string expert_dispatcher = "all_to_all";
  int64_t zero = 0;
  int64_t zero_ranks = 0;             // neighbours among replicas that share states; 0: all
  int64_t zero_parameter_ranks = 0;   // that share parameters; 0: as zero_ranks
  std::string reduce_dtype = "fp32";  // of gradients on their way
  bool overlap_grad_reduce = true;
  bool overlap_param_gather = true;
  int64_t gather_ahead = 1;  // layers
  int64_t bucket_elements = 40'000'000;
  double timeout_seconds = 600;
  std::string communicators;         // communicators.h
  bool adaptive_buffers = false;     // of HCCL, where communicators does not say
  double expert_buffer_factor = -1;  // -1: 200 MB
  bool aiqos = false;

  template <class Visitor>
  void fields(Visitor& v);
};

struct CheckpointConfig {
  int64_t every = 0;            // steps; 0: only at the end
  int64_t keep = 0;             // last N; 0: all
  std::string resume = "auto";  // auto, never, or a checkpoint folder
  bool asynchronous = true;
  bool save_final = true;
  bool hugging_face = false;

  template <class Visitor>
  void fields(Visitor& v);
};

struct LogConfig {
  int64_t every = 10;  // steps between terminal lines
  bool tensorboard = true;
  bool report = true;
  bool moe_per_layer_logging = false;
  int64_t trace_step_start = 0;       // 0: none
  int64_t trace_step_end = 0;         // 0: as the start
  std::optional<double> peak_tflops;  // absent: measured or known of the device

  template <class Visitor>
  void fields(Visitor& v);
};

struct RunConfig {
  std::string dir;  // filled by load: runs/<stem of the config file>

  template <class Visitor>
  void fields(Visitor& v);
};

// Which implementation serves an op; absent: the fastest that fits device and type.
struct OpsConfig {
  std::optional<std::string> embedding;
  std::optional<std::string> linear;
  std::optional<std::string> grouped_linear;
  std::optional<std::string> permute;
  std::optional<std::string> rms_norm;
  std::optional<std::string> layer_norm;
  std::optional<std::string> rotary;
  std::optional<std::string> activation;
  std::optional<std::string> attention;
  std::optional<std::string> cross_entropy;
  std::optional<std::string> adamw;
  std::optional<std::string> squared_norm;
  std::optional<std::string> causal_conv1d;
  std::optional<std::string> gated_delta_rule;
  std::optional<std::string> state_space;

  template <class Visitor>
  void fields(Visitor& v);
};

}  // namespace qianli::config
