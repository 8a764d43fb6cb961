// DeepSeek-V4. Published files say of each layer into how many tokens' keys its own are compressed,
// and in which number of first layers a table routes; transformers reads those and writes a kind
// for each layer. Both are read here, and transformers' words written. Its class has no multi-token
// prediction: those heads are passed over.
#include <fmt/core.h>

#include <algorithm>

#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

constexpr const char* kSparse = "compressed_sparse_attention";
constexpr const char* kHeavy = "heavily_compressed_attention";
constexpr double kCompressBase = 160000.0;
constexpr double kFraction = 0.125;  // 64 of 512
constexpr int64_t kHashLayers = 3;

struct TypeWord {
  MixerKind kind;
  const char* word;
  int64_t ratio;  // of the published files
};
constexpr TypeWord kTypes[] = {{MixerKind::kSlidingAttention, "sliding_attention", 0},
                               {MixerKind::kSparseCompressed, kSparse, 4},
                               {MixerKind::kHeavyCompressed, kHeavy, 128}};

const TypeWord& type_of(MixerKind kind) {
  return *std::ranges::find(kTypes, kind, &TypeWord::kind);
}

bool has_layers(const ModelSpec& spec, MixerKind kind) {
  if (spec.layer_pattern.empty()) return kind == MixerKind::kSlidingAttention;
  return std::ranges::find(spec.layer_pattern, kind) != spec.layer_pattern.end();
}

// Where the file says nothing: two heavy layers, then heavy and sparse ones in turn.
std::vector<MixerKind> default_pattern(int64_t layers) {
  std::vector<MixerKind> pattern;
  for (int64_t l = 0; l < layers; ++l) {
    const bool heavy = l < 2 || l % 2 == 0;
    pattern.push_back(heavy ? MixerKind::kHeavyCompressed : MixerKind::kSparseCompressed);
  }
  return pattern;
}

std::vector<MixerKind> pattern_of(const ConfigReader& config, int64_t layers) {
  std::vector<MixerKind> pattern;
  const auto types = config.texts("layer_types");
  const auto ratios = config.integers("compress_ratios");
  for (const std::string& word : types) {
    const auto found = std::ranges::find_if(kTypes, [&](const auto& t) { return t.word == word; });
    if (found == std::end(kTypes)) {
      config.fail("layer_types", fmt::format("sliding_attention, {} or {}", kSparse, kHeavy));
    }
    pattern.push_back(found->kind);
  }
  for (size_t l = 0; types.empty() && l < ratios.size(); ++l) {
    const auto found = std::ranges::find(kTypes, ratios[l], &TypeWord::ratio);
    if (found == std::end(kTypes)) config.fail("compress_ratios", "0, 4 or 128 for each layer");
    pattern.push_back(found->kind);
  }
  if (pattern.empty()) return default_pattern(layers);
  // Behind them may stand those of multi-token prediction.
  if (static_cast<int64_t>(pattern.size()) < layers) {
    config.fail(types.empty() ? "compress_ratios" : "layer_types",
                fmt::format("one value per layer ({})", layers));
  }
  pattern.resize(static_cast<size_t>(layers));
  return pattern;
}

void read_layers(const ConfigReader& config, ModelSpec& spec) {
  CompressedAttention& sizes = *spec.compressed_attention;
  if (config.has("compress_rates")) {
    const ConfigReader rates = config.child("compress_rates");
    sizes.sparse_ratio = rates.integer(kSparse, sizes.sparse_ratio);
    sizes.heavy_ratio = rates.integer(kHeavy, sizes.heavy_ratio);
  }
  sizes.sparse_ratio = config.integer("compress_rate_csa", sizes.sparse_ratio);
  sizes.heavy_ratio = config.integer("compress_rate_hca", sizes.heavy_ratio);
  if (spec.num_layers < 1 || spec.num_layers > 100000) return;  // refused by validate()
  spec.layer_pattern = shortest(pattern_of(config, spec.num_layers));
  if (spec.layer_pattern == std::vector{MixerKind::kSlidingAttention}) spec.layer_pattern.clear();
  if (!has_layers(spec, MixerKind::kSparseCompressed)) spec.indexer.reset();
}

void read_hash_layers(const ConfigReader& config, ModelSpec& spec) {
  int64_t& count = spec.moe->num_hash_layers;
  const int64_t layers = std::max<int64_t>(spec.num_layers, 0);
  count = std::min(config.integer("num_hash_layers", kHashLayers), layers);
  const auto types = config.texts("mlp_layer_types");
  if (types.empty()) return;
  const auto first = std::ranges::find(types, "moe");
  const bool known =
      std::all_of(types.begin(), first, [](const auto& t) { return t == "hash_moe"; }) &&
      std::all_of(first, types.end(), [](const auto& t) { return t == "moe"; });
  if (!known || static_cast<int64_t>(types.size()) < layers) {
    config.fail("mlp_layer_types",
                fmt::format("hash_moe for the first of {} layers and moe for the "
                            "others",
                            layers),
                "layers that route by a table and stand behind others are not supported");
  }
  count = std::min<int64_t>(first - types.begin(), layers);
}

// The rules of plain layers and of those with compressed keys: an object each, or one whose scaling
// holds for the compressed alone and whose bases stand beside it.
void read_ropes(const ConfigReader& config, ModelSpec& spec) {
  const double size = static_cast<double>(std::max<int64_t>(spec.head_dim, 1));
  double fraction = kFraction;
  if (config.has("qk_rope_head_dim")) {
    fraction = static_cast<double>(config.integer("qk_rope_head_dim")) / size;
  }
  fraction = config.number("partial_rotary_factor", fraction);
  Rope plain{
      .base = config.number("rope_theta", 10000.0), .fraction = fraction, .interleaved = true};
  Rope compressed{.base = config.number("compress_rope_theta", kCompressBase),
                  .fraction = fraction,
                  .interleaved = true};
  const char* key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (config.has(key)) {
    const ConfigReader options = config.child(key);
    if (options.has("main") && options.has("compress")) {
      plain.fraction = compressed.fraction = 1.0;
      const auto read_one = [&](const char* name, Rope& rope) {
        read_rope_object(config, options.child(name), {.fraction = 1.0},
                         spec.max_position_embeddings, rope);
      };
      read_one("main", plain);
      read_one("compress", compressed);
    } else {
      const Rope own = compressed;
      read_rope_object(config, options, {.fraction = fraction}, spec.max_position_embeddings,
                       compressed);
      compressed.base = own.base;
      compressed.fraction = own.fraction;
      RopeScaling& scaling = compressed.scaling;
      if (scaling.kind == RopeScalingKind::kYarn && !scaling.attention_factor) {
        scaling.attention_factor = 1.0;  // published models are not made louder
      }
    }
  }
  const bool slides = has_layers(spec, MixerKind::kSlidingAttention);
  spec.rope = spec.layer_pattern.empty() ? plain : compressed;
  if (slides && plain != spec.rope) spec.sliding_rope = plain;
}

void read(const ConfigReader& config, ModelSpec& spec) {
  if (config.text("hidden_act", "silu") != "silu") config.fail("hidden_act", "silu");
  const double limit = config.number("swiglu_limit", 10.0);
  if (!(limit > 0)) config.fail("swiglu_limit", "a positive number");
  spec.activation_limit = {limit};
  spec.ffn_hidden_size = spec.moe->shared_ffn_hidden_size = spec.moe->ffn_hidden_size;
  read_layers(config, spec);
  read_hash_layers(config, spec);
  read_ropes(config, spec);
  read_tokens(config, 0, 1, spec);
}

OrderedJson written_rope(const Rope& rope) {
  OrderedJson options = rope_object(rope);
  options["rope_theta"] = rope.base;
  options["partial_rotary_factor"] = rope.fraction;
  return options;
}

void write(const ModelSpec& spec, OrderedJson& config) {
  config["hidden_act"] = "silu";
  if (spec.activation_limit.size() == 1) config["swiglu_limit"] = spec.activation_limit[0];
  OrderedJson types = OrderedJson::array(), routers = OrderedJson::array();
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    types.push_back(type_of(spec.layer(l).mixer).word);
    routers.push_back(l < spec.moe->num_hash_layers ? "hash_moe" : "moe");
  }
  config["layer_types"] = types;
  config["mlp_layer_types"] = routers;
  config["compress_rates"] = {{kSparse, spec.compressed_attention->sparse_ratio},
                              {kHeavy, spec.compressed_attention->heavy_ratio}};
  const Rope& plain = spec.sliding_rope.value_or(spec.rope);
  config["rope_theta"] = plain.base;
  config["compress_rope_theta"] = spec.rope.base;
  config["partial_rotary_factor"] = spec.rope.fraction;
  config["rope_parameters"] = {{"main", written_rope(plain)},
                               {"compress", written_rope(spec.rope)}};
  config["scoring_func"] = "sqrtsoftplus";
  config["norm_topk_prob"] = true;
  config["n_shared_experts"] = 1;
  config["num_nextn_predict_layers"] = 0;
  write_tokens(spec, config);
}

// As transformers saves them, which are those of the published files but for these:
//   embed.weight, hc_head_fn, layers.{l}.attn.kv_norm.weight, and no "model." in front.
ForeignNames names() {
  ForeignNames names;
  names.optional_prefix = "model.";
  names.ignored_prefixes = {"mtp.", "model.mtp."};
  names.aliases = {
      {"embed_tokens.", "embed."}, {"hc_head.hc_", "hc_head_"}, {".attn.norm.", ".attn.kv_norm."}};
  names.embedding = "model.embed_tokens";
  names.layer = "model.layers.{l}.";
  names.input_norm = "attn_norm";
  names.mlp_norm = "ffn_norm";
  names.final_norm = "model.norm";
  names.output = "head";
  names.latent.query_down = "attn.wq_a";
  names.latent.query_norm = "attn.q_norm";
  names.latent.query_up = "attn.wq_b";
  names.sinks = "attn.attn_sink";
  names.attention_out = "attn.wo_b";
  const auto compressor = [](const std::string& prefix) {
    return ForeignNames::Compressor{.key_value = prefix + "wkv",
                                    .gate = prefix + "wgate",
                                    .norm = prefix + "norm",
                                    .position_bias = prefix + "ape"};
  };
  names.compressed = {.key_value = "attn.wkv",
                      .key_value_norm = "attn.norm",
                      .out_down = "attn.wo_a",
                      .compressor = compressor("attn.compressor."),
                      .of_indexer = compressor("attn.indexer.compressor.")};
  names.indexer.query = "attn.indexer.wq_b";
  names.indexer.weights = "attn.indexer.weights_proj";
  names.attention_streams = {"hc_attn_fn", "hc_attn_base", "hc_attn_scale"};
  names.mlp_streams = {"hc_ffn_fn", "hc_ffn_base", "hc_ffn_scale"};
  names.final_streams = {"model.hc_head.hc_fn", "model.hc_head.hc_base", "model.hc_head.hc_scale"};
  names.experts = {.router = "ffn.gate",
                   .selection_bias = "ffn.gate.bias",
                   .token_experts = "ffn.gate.tid2eid",
                   .in = {"ffn.experts.{e}.w1", "ffn.experts.{e}.w3"},
                   .out = "ffn.experts.{e}.w2",
                   .shared_in = {"ffn.shared_experts.w1", "ffn.shared_experts.w3"},
                   .shared_out = "ffn.shared_experts.w2"};
  return names;
}

std::vector<Key> keys() {
  return {{"hidden_size", "hidden_size", 4096},
          {"num_hidden_layers", "num_layers", 43},
          {"num_attention_heads", "num_attention_heads", 64},
          {"num_key_value_heads", "num_query_groups", 1},
          {"head_dim", "head_dim", 512},
          {"vocab_size", "vocab_size", 129280},
          {"max_position_embeddings", "max_position_embeddings", 1048576},
          {"rms_norm_eps", "norm_eps", 1e-6},
          {"tie_word_embeddings", "tie_word_embeddings", false},
          {"initializer_range", "init_std", 0.02},
          {"sliding_window", "sliding_window", 128},
          {"q_lora_rank", "compressed_attention.q_lora_rank", 1024},
          {"o_groups", "compressed_attention.output_groups", 8},
          {"o_lora_rank", "compressed_attention.output_lora_rank", 1024},
          {"index_n_heads", "indexer.num_heads", 64},
          {"index_head_dim", "indexer.head_dim", 128},
          {"index_topk", "indexer.top_k", 512},
          {"hc_mult", "hyper_connections.streams", 4},
          {"hc_sinkhorn_iters", "hyper_connections.sinkhorn_iterations", 20},
          {"hc_eps", "hyper_connections.eps", 1e-6},
          {.key = "n_routed_experts",
           .field = "moe.num_experts",
           .absent = 256,
           .also = "num_local_experts"},
          {"num_experts_per_tok", "moe.top_k", 6},
          {.key = "moe_intermediate_size",
           .field = "moe.ffn_hidden_size",
           .absent = 2048,
           .also = "intermediate_size"},
          {"routed_scaling_factor", "moe.scaling_factor", 1.5},
          {"router_aux_loss_coef", "moe.aux_loss_coeff", 0.001}};
}

}  // namespace

const Family& deepseek_v4_family() {
  static const Family family{
      .model_type = "deepseek_v4",
      .architecture = "DeepseekV4ForCausalLM",
      .traits = {.family = "deepseek_v4",
                 .num_query_groups = 1,
                 .rope = {.base = kCompressBase, .fraction = kFraction, .interleaved = true},
                 .limit_before_activation = true,
                 .attention_sinks = true,
                 .compressed_attention = CompressedAttention{},
                 .hyper_connections = HyperConnections{},
                 .moe = MixtureOfExperts{.score = RouterScore::kSqrtSoftplus,
                                         .normalize_top_k = true,
                                         .selection_bias = true}},
      .names = names(),
      .keys = keys(),
      .others = {{"swiglu_limit", "activation_limit"},
                 {"num_hash_layers", "moe.num_hash_layers"},
                 {"layer_types", "layer_pattern"}},
      .guards = {{"scoring_func", {"sqrtsoftplus"}},
                 {"topk_method", {"noaux_tc"}},
                 {"norm_topk_prob", {true}},
                 {"n_shared_experts", {1}},
                 {"attention_bias", {false}},
                 {"mlp_bias", {false}}},
      .read = read,
      .write = write,
      .silent = {"num_nextn_predict_layers", "output_router_logits", "router_jitter_noise",
                 "expert_dtype", "ep_size"},
  };
  return family;
}

}  // namespace qianli::model
