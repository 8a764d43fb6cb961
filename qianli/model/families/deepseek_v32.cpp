#include <algorithm>

#include "qianli/model/families/latent.h"
#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

void read_common(const ConfigReader& config, ModelSpec& spec) {
  read_decoder(config, {.bos_token_id = 0, .eos_token_id = 1}, spec);
  read_latent_heads(config, spec);
  spec.attention_out_bias = spec.qkv_bias;
  read_shared_experts(config, "n_shared_experts", 1, spec);
  read_mlp_layer_types(config, spec);
  read_aux_loss(config, spec);
  for (const std::string& type : config.texts("layer_types")) {
    if (type != "deepseek_sparse_attention") {
      config.fail("layer_types", "deepseek_sparse_attention in all layers");
    }
  }
}

void write_common(const ModelSpec& spec, OrderedJson& config) {
  write_decoder(spec, config);
  write_shared_experts(spec, "n_shared_experts", config);
  write_mlp_layer_types(spec, config);
  write_aux_loss(spec, config);
}

// The frequency and offset by which a list of layers that own an indexer goes: up to the first that
// shares one, all do.
void set_schedule(const std::vector<bool>& owns, Indexer& indexer) {
  const auto first = std::ranges::find(owns, false);
  indexer.frequency = 1;
  indexer.skip = 0;
  if (first == owns.end()) return;
  indexer.skip = first - owns.begin();
  indexer.frequency = std::ranges::find(first, owns.end(), true) - first + 1;
}

// Which layers own an indexer: a list of words has the last word over a frequency and an offset, as
// in transformers.
void read_schedule(const ConfigReader& config, ModelSpec& spec) {
  Indexer& indexer = *spec.indexer;
  indexer.frequency = std::max<int64_t>(config.integer("index_topk_freq", 1), 1);
  indexer.skip = config.integer("index_skip_topk_offset", 2);
  if (indexer.frequency == 1) indexer.skip = 0;
  if (config.has("index_topk_pattern")) {
    config.fail("index_topk_pattern", "index_topk_freq and index_skip_topk_offset instead");
  }
  const auto types = config.texts("indexer_types");
  if (types.empty()) return;
  check_layers(config, "indexer_types", types.size(), 0, spec);
  std::vector<bool> owns;
  for (const std::string& type : types) {
    if (type != "full" && type != "shared") config.fail("indexer_types", "full or shared");
    owns.push_back(type == "full");
  }
  set_schedule(owns, indexer);
  for (size_t l = 0; l < owns.size(); ++l) {
    const auto behind = std::max<int64_t>(static_cast<int64_t>(l) + 1 - indexer.skip, 0);
    if ((behind % indexer.frequency == 0) == owns[l]) continue;
    config.fail("indexer_types", "\"full\" in the first layers and then in one of so many");
  }
}

void read_glm(const ConfigReader& config, ModelSpec& spec) {
  read_common(config, spec);
  read_schedule(config, spec);
}

void write_glm(const ModelSpec& spec, OrderedJson& config) {
  write_common(spec, config);
  config["index_topk_freq"] = spec.indexer->frequency;
  if (spec.indexer->frequency > 1) config["index_skip_topk_offset"] = spec.indexer->skip;
}

ForeignNames names() {
  ForeignNames names = decoder_names();
  name_latent(names);
  names.experts = expert_names();
  names.experts.selection_bias = "mlp.gate.e_score_correction_bias";
  name_shared_experts("mlp.shared_experts", names.experts);
  names.mtp = deepseek_mtp_names();
  return names;
}

std::vector<Key> keys(const DecoderDefaults& decoder, const LatentDefaults& latent,
                      const DeepseekMoeDefaults& moe, int64_t index_heads) {
  auto keys = with_keys(latent_keys(decoder_keys(decoder), latent), deepseek_moe_keys(moe));
  return with_keys(std::move(keys), {{"attention_bias", "qkv_bias", false},
                                     {"mlp_bias", "mlp_bias", false},
                                     {"index_n_heads", "indexer.num_heads", index_heads},
                                     {"index_head_dim", "indexer.head_dim", 128},
                                     {"index_topk", "indexer.top_k", 2048},
                                     mtp_key()});
}

}  // namespace

const Family& deepseek_v32_family() {
  static const Family family{
      .model_type = "deepseek_v32",
      .architecture = "DeepseekV32ForCausalLM",
      .traits = {.family = "deepseek_v32",
                 .rope = {.interleaved = true},
                 .latent_attention = LatentAttention{},
                 .indexer = Indexer{},
                 .moe = MixtureOfExperts{.score = RouterScore::kSigmoid, .selection_bias = true}},
      .names = names(),
      .keys = keys({.max_positions = 163840}, {}, {.groups = 8, .topk_groups = 4}, 64),
      .guards = {{"scoring_func", {"sigmoid"}},
                 {"topk_method", {"noaux_tc"}},
                 {"moe_layer_freq", {1}},
                 {"rope_interleave", {true}}},
      .read = read_common,
      .write = write_common,
      .silent = {"ep_size", "output_router_logits"},
  };
  return family;
}

const Family& glm_moe_dsa_family() {
  static const Family family{
      .model_type = "glm_moe_dsa",
      .architecture = "GlmMoeDsaForCausalLM",
      .traits = {.family = "glm_moe_dsa",
                 .rope = {.interleaved = true},
                 .latent_attention = LatentAttention{},
                 .indexer = Indexer{.interleaved = true},
                 .moe = MixtureOfExperts{.score = RouterScore::kSigmoid, .selection_bias = true}},
      .names = names(),
      .keys = keys({.max_positions = 202752, .norm_eps = 1e-5},
                   {.q_lora_rank = 2048, .nope = 192, .v_head_dim = 256}, {}, 32),
      .guards = {{"scoring_func", {"sigmoid"}},
                 {"topk_method", {"noaux_tc"}},
                 {"moe_layer_freq", {1}},
                 {"rope_interleave", {true}},
                 {"indexer_rope_interleave", {true}}},
      .read = read_glm,
      .write = write_glm,
      .silent = {"ep_size", "output_router_logits"},
  };
  return family;
}

}  // namespace qianli::model
