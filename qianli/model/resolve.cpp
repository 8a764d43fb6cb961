#include "qianli/model/resolve.h"

#include <fmt/core.h>

#include <cmath>
#include <set>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/config/field.h"
#include "qianli/model/family.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/presets.h"
#include "qianli/model/spec_fields.h"

namespace qianli::model {
namespace {

namespace fs = std::filesystem;

ModelSpec source_spec(const config::ModelConfig& model) {
  if (model.source.empty()) {
    if (model.family) return find_family(*model.family).traits;
    throw ConfigError(
        "model", "expected model to be a preset, a folder, or a family with its sizes, got none",
        "for example `model: llama-tiny`; `qianli presets` lists the presets");
  }
  if (is_preset(model.source)) return preset(model.source);
  std::error_code ignored;
  if (fs::is_directory(model.source, ignored)) return load_spec(model.source);
  throw ConfigError("model",
                    fmt::format("expected a preset or a model, got '{}'{}", model.source,
                                suggestion(model.source, preset_names())),
                    "`qianli presets` lists the presets");
}

// The sizes of `sizes` under the switches of another family.
ModelSpec with_family(const ModelSpec& sizes, const std::string& name) {
  ModelSpec spec = find_family(name).traits;
  if (sizes.family == spec.family) return sizes;
  spec.num_layers = sizes.num_layers;
  spec.hidden_size = sizes.hidden_size;
  spec.ffn_hidden_size = sizes.ffn_hidden_size;
  spec.num_attention_heads = sizes.num_attention_heads;
  spec.num_query_groups = sizes.num_query_groups;
  spec.head_dim = sizes.head_dim;
  spec.vocab_size = sizes.vocab_size;
  spec.max_position_embeddings = sizes.max_position_embeddings;
  spec.tie_word_embeddings = sizes.tie_word_embeddings;
  spec.init_std = sizes.init_std;
  spec.bos_token_id = sizes.bos_token_id;
  spec.eos_token_ids = sizes.eos_token_ids;
  spec.pad_token_id = sizes.pad_token_id;
  return spec;
}

// The value of an option as set_field reads it; nothing where it is not given.
struct OptionText {
  template <class T>
  std::optional<std::string> operator()(std::optional<T>* value) const {
    if (!*value) return std::nullopt;
    return fmt::format("{}", **value);
  }
  template <class Other>
  std::optional<std::string> operator()(const Other&) const {
    return std::nullopt;  // the source itself
  }
};

// Puts what the section gives over the spec: options have the paths of its fields.
void put_options(const config::Section& section, const std::string& prefix, ModelSpec& spec) {
  for (const config::Field& field : section.fields) {
    const std::string path = prefix + std::string(field.option.key);
    if (const auto* below = std::get_if<config::Section>(&field.value)) {
      put_options(*below, path + ".", spec);
      continue;
    }
    if (path == "load_weights" || path == "family") continue;
    if (const auto text = std::visit(OptionText{}, field.value)) set_field(spec, path, *text);
  }
}

// Sizes that follow from others, where the source has them so (a fresh spec has all sizes 0).
void derive_sizes(const config::ModelConfig& model, const ModelSpec& source, ModelSpec& spec) {
  if (!model.num_query_groups && source.num_query_groups == source.num_attention_heads) {
    spec.num_query_groups = spec.num_attention_heads;
  }
  // Gemma's embedding is multiplied by the root of its width.
  const auto root = [](int64_t size) { return std::sqrt(static_cast<double>(size)); };
  if (source.embedding_multiplier == root(source.hidden_size)) {
    spec.embedding_multiplier = root(spec.hidden_size);
  }
  const bool changed = model.hidden_size || model.num_attention_heads;
  const bool follows = source.num_attention_heads * source.head_dim == source.hidden_size;
  if (model.head_dim || !changed || !follows) return;
  if (spec.num_attention_heads < 1 || spec.hidden_size % spec.num_attention_heads != 0) {
    throw ConfigError("model",
                      fmt::format("expected model.hidden_size to be a multiple of "
                                  "model.num_attention_heads, got {} and {}",
                                  spec.hidden_size, spec.num_attention_heads),
                      "or give model.head_dim");
  }
  spec.head_dim = spec.hidden_size / spec.num_attention_heads;
}

ModelSpec apply(const config::ModelConfig& model, const ModelSpec& source) {
  ModelSpec spec = model.family ? with_family(source, *model.family) : source;
  config::ModelConfig options = model;
  put_options(config::fields_of(options), "", spec);
  derive_sizes(model, source, spec);
  return spec;
}

// Whether a model may differ in this field from the folder its weights come from: no parameter gets
// another shape by it.
bool is_free(const std::string& path, const ModelSpec& spec) {
  static const std::set<std::string> kFree{"norm_eps",
                                           "init_std",
                                           "sliding_window",
                                           "attention_softcap",
                                           "layer_pattern",
                                           "final_logit_softcap",
                                           "mtp.num_layers",
                                           "mtp.loss_scaling_factor",
                                           "indexer.loss_coeff",
                                           "moe.top_k",
                                           "moe.scaling_factor",
                                           "moe.z_loss_coeff",
                                           "moe.aux_loss_coeff",
                                           "moe.input_jitter",
                                           "moe.sinkhorn",
                                           "moe.token_drop_policy",
                                           "moe.router_dtype",
                                           "moe.sequence_aux_loss_coeff",
                                           "moe.capacity_factor",
                                           "moe.device_aux_loss_coeff",
                                           "moe.pad_to_capacity",
                                           "moe.communication_aux_loss_coeff",
                                           "moe.bias_update_rate"};
  if (path == "max_position_embeddings") return spec.position == PositionKind::kRotary;
  return kFree.contains(path) || path.starts_with("rope.") || path.starts_with("sliding_rope.");
}

}  // namespace

std::optional<fs::path> weights_folder(const config::ModelConfig& model) {
  const bool folder = !model.source.empty() && !is_preset(model.source);
  if (folder && model.load_weights.value_or(true)) return fs::path(model.source);
  if (model.load_weights.value_or(false)) {
    throw ConfigError(
        "model", fmt::format("expected a folder for model.load_weights, got '{}'", model.source),
        "presets have no weights");
  }
  return std::nullopt;
}

ModelSpec resolve(const config::ModelConfig& model, const std::optional<ModelSpec>& of_weights) {
  const auto weights = weights_folder(model);
  const ModelSpec source = of_weights ? *of_weights : source_spec(model);
  const ModelSpec spec = apply(model, source);
  spec.validate();
  if (weights) {
    auto changed = differences(source, spec);
    std::erase_if(changed, [&](const std::string& line) {
      return is_free(line.substr(0, line.find(':')), spec);
    });
    if (!changed.empty()) {
      throw ConfigError(
          "model",
          fmt::format("expected the shapes of the weights in {}, got other ones by {}",
                      weights->string(), join(changed, "; ")),
          "leave these switches out, or set model.load_weights: false to start fresh");
    }
  }
  return spec;
}

}  // namespace qianli::model
