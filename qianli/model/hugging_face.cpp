#include "qianli/model/hugging_face.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <set>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/strings.h"
#include "qianli/model/config_reader.h"
#include "qianli/model/family.h"
#include "qianli/model/quantization.h"
#include "qianli/model/spec_fields.h"

namespace qianli::model {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;

// Keys that say "the model computes something else" unless neutral, in families that do not read
// them.
const std::vector<Guard>& common_guards() {
  static const std::vector<Guard> guards{
      {"partial_rotary_factor", {1, 1.0}},
      {"rotary_pct", {1, 1.0}},
      {"rope_interleaved", {false}},
      {"rope_ratio", {1, 1.0}},
      {"alibi", {false}},
      {"no_rope_layers", {Json::array()}},
      {"position_embedding_type", {"absolute", "rope", "rotary"}},
      {"embedding_multiplier", {1, 1.0}},
      {"residual_multiplier", {1, 1.0}},
      {"attention_multiplier", {}},
      {"logits_scaling", {1, 1.0}},
      {"logit_scale", {1, 1.0}},
      {"scale_emb", {1, 1.0}},
      {"scale_depth", {}},
      {"dim_model_base", {}},
      {"query_pre_attn_scalar", {}},
      {"attn_logit_softcapping", {}},
      {"final_logit_softcapping", {}},
      {"attention_chunk_size", {}},
      {"clip_qkv", {}},
      {"multi_query", {false}},
      {"parallel_attn", {false}},
      {"use_parallel_residual", {false}},
      {"is_encoder_decoder", {false}},
      {"is_causal", {true}},
      {"lm_head_bias", {false}},
      {"add_cross_attention", {false}},
      {"num_experts", {0}},
      {"num_local_experts", {0}},
      {"n_routed_experts", {0}},
      {"kv_lora_rank", {0}},
      {"q_lora_rank", {0}},
      {"vision_config", {}},
  };
  return guards;
}

// Keys that say nothing about the mathematics of a forward pass.
const std::set<std::string>& harmless_keys() {
  static const std::set<std::string> keys{"_attn_implementation",
                                          "_name_or_path",
                                          "_commit_hash",
                                          "architectures",
                                          "auto_map",
                                          "bad_words_ids",
                                          "begin_suppress_tokens",
                                          "chunk_size_feed_forward",
                                          "decoder_start_token_id",
                                          "diversity_penalty",
                                          "do_sample",
                                          "dtype",
                                          "early_stopping",
                                          "encoder_no_repeat_ngram_size",
                                          "exponential_decay_length_penalty",
                                          "finetuning_task",
                                          "forced_bos_token_id",
                                          "forced_eos_token_id",
                                          "gradient_checkpointing",
                                          "id2label",
                                          "is_decoder",
                                          "label2id",
                                          "length_penalty",
                                          "max_length",
                                          "max_sequence_length",
                                          "min_length",
                                          "model_type",
                                          "n_ctx",
                                          "no_repeat_ngram_size",
                                          "num_beam_groups",
                                          "num_beams",
                                          "num_labels",
                                          "num_return_sequences",
                                          "output_attentions",
                                          "output_hidden_states",
                                          "output_scores",
                                          "prefix",
                                          "pretraining_tp",
                                          "problem_type",
                                          "pruned_heads",
                                          "quantization_config",
                                          "remove_invalid_values",
                                          "repetition_penalty",
                                          "return_dict",
                                          "return_dict_in_generate",
                                          "sep_token_id",
                                          "summary_activation",
                                          "summary_first_dropout",
                                          "summary_proj_to_labels",
                                          "summary_type",
                                          "summary_use_proj",
                                          "suppress_tokens",
                                          "task_specific_params",
                                          "temperature",
                                          "tf_legacy_loss",
                                          "tie_encoder_decoder",
                                          "tokenizer_class",
                                          "top_k",
                                          "top_p",
                                          "torch_dtype",
                                          "torchscript",
                                          "transformers_version",
                                          "typical_p",
                                          "unsloth_fixed",
                                          "unsloth_version",
                                          "use_bfloat16",
                                          "use_cache",
                                          "use_sliding_window",
                                          "max_window_layers"};
  return keys;
}

constexpr std::array kDropouts{"attention_dropout", "attn_pdrop",        "attn_dropout_prob",
                               "hidden_dropout",    "residual_dropout",  "resid_pdrop",
                               "output_dropout",    "embedding_dropout", "embd_pdrop",
                               "emb_dropout_prob"};

void check_guards(const ConfigReader& config, const Family& family) {
  const auto check = [&](const Guard& guard) {
    const Json& value = config.raw(guard.key);
    if (value.is_null() || std::ranges::find(guard.neutral, value) != guard.neutral.end()) return;
    const std::string neutral = guard.neutral.empty() ? "null" : shown(guard.neutral.front());
    config.fail(guard.key, fmt::format("{} for family {}", neutral, family.model_type),
                "this option is not supported; without it the model would compute something else");
  };
  for (const Guard& guard : family.guards) check(guard);
  for (const Guard& guard : common_guards()) {
    if (!config.was_read(guard.key)) check(guard);
  }
}

std::vector<std::string> dropout_rates(const ConfigReader& config) {
  std::vector<std::string> rates;
  for (const char* key : kDropouts) {
    const double rate = config.number(key, 0);
    if (rate > 0) rates.push_back(fmt::format("{} {}", key, rate));
  }
  return rates;
}

void report_unknown_keys(const ConfigReader& config, const Family& family) {
  std::vector<std::string> unknown;
  for (const std::string& key : config.unread()) {
    if (std::ranges::find(family.silent, key) != family.silent.end()) continue;
    if (!harmless_keys().contains(key)) unknown.push_back(key.substr(0, 60));
  }
  if (unknown.size() > 10) unknown.resize(10);
  if (!unknown.empty()) {
    log::warn("model", "{} has keys that are not known here and have no effect: {}",
              config.source(), join(unknown, ", "));
  }
}

const Family& family_of(const ConfigReader& config) {
  if (!config.has("model_type")) {
    config.fail("model_type", "the name of a model family",
                "known families: " + join(family_names(), ", "));
  }
  const std::string name = config.text("model_type", "");
  for (const Family* family : families()) {
    if (family->model_type == name) return *family;
  }
  config.fail("model_type", "a known model family" + suggestion(name, family_names()),
              "known families: " + join(family_names(), ", "));
}

// Switches that only training looks at. A config.json has words for few of them; the others stand
// in an object of this name, which other programs pass over.
constexpr const char* kTrainingKey = "qianli_training";
constexpr std::array kTrainingFields{"init_std",
                                     "mtp.loss_scaling_factor",
                                     "indexer.loss_coeff",
                                     "moe.aux_loss_coeff",
                                     "moe.sequence_aux_loss_coeff",
                                     "moe.device_aux_loss_coeff",
                                     "moe.communication_aux_loss_coeff",
                                     "moe.z_loss_coeff",
                                     "moe.bias_update_rate",
                                     "moe.input_jitter",
                                     "moe.sinkhorn",
                                     "moe.token_drop_policy",
                                     "moe.router_dtype",
                                     "moe.capacity_factor",
                                     "moe.pad_to_capacity"};

std::vector<Key> training_keys() {
  std::vector<Key> keys;
  for (const char* field : kTrainingFields) keys.push_back({.key = field, .field = field});
  return keys;
}

void read_training_keys(const ConfigReader& config, ModelSpec& spec) {
  if (!config.has(kTrainingKey)) return;
  const ConfigReader own = config.child(kTrainingKey);
  for (const Key& key : training_keys()) {
    if (own.contains(key.key) && has_field(spec, key.field)) read_keys(own, {&key, 1}, spec);
  }
}

void write_training_keys(const ModelSpec& spec, const ModelSpec& read_back, OrderedJson& config) {
  for (const Key& key : training_keys()) {
    if (!has_field(spec, key.field) || !has_field(read_back, key.field)) continue;
    ModelSpec a = spec, b = read_back;
    if (field_text(*field_at(a, key.field)) == field_text(*field_at(b, key.field))) continue;
    OrderedJson one;
    write_keys(spec, {&key, 1}, one);
    config[kTrainingKey][key.key] = one[key.key];
  }
}

// The text part of a model that also sees: its config.json nests that of the decoder.
std::optional<ModelSpec> read_text_part(const Json& config, const std::string& source) {
  if (!config.is_object() || !config.contains("text_config")) return std::nullopt;
  constexpr std::pair<const char*, const char*> kParts[] = {{"gemma3", "gemma3_text"},
                                                            {"step3p7", "step3p5"}};
  const Json whole = config.value("model_type", Json());
  const auto part = std::ranges::find_if(kParts, [&](const auto& p) { return whole == p.first; });
  if (part == std::end(kParts)) return std::nullopt;
  Json text = config.at("text_config");
  if (text.is_object() && !text.contains("model_type")) text["model_type"] = part->second;
  log::info("model", "{}: the text model alone is read", source);
  return from_hugging_face(text, source + " text_config");
}

// The parts that every member of a family has, and that its writer takes for granted.
void check_parts(const Family& family, const ModelSpec& spec) {
  const auto expect = [&](bool in_family, bool present, const char* part) {
    if (!in_family || present) return;
    throw ConfigError("model", fmt::format("expected {}, which every {} model has, got none", part,
                                           family.model_type));
  };
  const ModelSpec& traits = family.traits;
  expect(traits.moe.has_value(), spec.moe.has_value(), "experts");
  expect(traits.latent_attention.has_value(), spec.latent_attention.has_value(),
         "latent attention");
  expect(traits.indexer.has_value(), spec.indexer.has_value(), "an indexer");
  expect(traits.compressed_attention.has_value(), spec.compressed_attention.has_value(),
         "compressed attention");
  expect(traits.hyper_connections.has_value(), spec.hyper_connections.has_value(),
         "hyper-connections");
  expect(traits.gated_delta_net.has_value(), spec.gated_delta_net.has_value(), "a gated delta net");
  expect(traits.mamba2.has_value(), spec.mamba2.has_value(), "state-space layers");
}

}  // namespace

std::vector<std::string> dropout_rates(const Json& config) {
  return dropout_rates(ConfigReader(config, "config.json"));
}

ModelSpec from_hugging_face(const Json& config, const std::string& source) {
  read_quantization(config, source);  // refuses what no reader of weights could turn back
  if (const auto part = read_text_part(config, source)) return *part;
  const ConfigReader reader(config, source);
  const Family& family = family_of(reader);
  ModelSpec spec = family.traits;
  read_keys(reader, family.keys, spec);
  family.read(reader, spec);
  read_training_keys(reader, spec);
  // A model of few layers under its family's default has dense ones alone.
  if (spec.moe) spec.moe->first_k_dense = std::min(spec.moe->first_k_dense, spec.num_layers);
  check_guards(reader, family);
  dropout_rates(reader);  // known keys
  try {
    spec.validate();
  } catch (const ConfigError& error) {
    std::string_view reason = error.what();  // "[model] ... ." becomes part of a sentence
    reason.remove_prefix(std::min(reason.size(), reason.find(' ') + 1));
    if (reason.ends_with('.')) reason.remove_suffix(1);
    throw ConfigError("model", fmt::format("{} does not describe a model: {}", source,
                                           in_words_of(family, std::string(reason))));
  }
  report_unknown_keys(reader, family);
  return spec;
}

OrderedJson to_hugging_face(const ModelSpec& spec, std::string_view dtype) {
  spec.validate();
  const Family& family = find_family(spec.family);
  check_parts(family, spec);
  OrderedJson config;
  config["architectures"] = {family.architecture};
  config["model_type"] = family.model_type;
  config["torch_dtype"] = dtype;
  write_keys(spec, family.keys, config);
  family.write(spec, config);
  config["use_cache"] = true;
  write_training_keys(spec, from_hugging_face(Json(config), "config.json to be written"), config);
  // What the family has no words for comes back as something else.
  const auto lost = differences(spec, from_hugging_face(Json(config), "config.json to be written"));
  if (!lost.empty()) {
    throw ConfigError(
        "model",
        fmt::format("expected a model that a {} config.json can describe, got {} (that "
                    "of the model and that of the family)",
                    family.model_type, join(lost, "; ")),
        "choose a family that has this switch");
  }
  return config;
}

Json read_config(const std::filesystem::path& folder) {
  return read_json(folder / "config.json", FileRole::kConfig, kMaxConfigBytes);
}

ModelSpec load_spec(const std::filesystem::path& folder) {
  return from_hugging_face(read_config(folder), (folder / "config.json").string());
}

}  // namespace qianli::model
