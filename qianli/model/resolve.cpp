#include "qianli/model/resolve.h"

#include <fmt/core.h>

#include <cmath>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/model/family.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/presets.h"

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
                    fmt::format("expected a preset or a folder with config.json, got '{}'{}",
                                model.source, suggestion(model.source, preset_names())),
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

template <class T, class U>
void put(T& field, const std::optional<U>& value) {
  if (value) field = *value;
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
  if (model.head_dim || !changed || source.query_size() != source.hidden_size) return;
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
  put(spec.num_layers, model.num_layers);
  put(spec.hidden_size, model.hidden_size);
  put(spec.ffn_hidden_size, model.ffn_hidden_size);
  put(spec.num_attention_heads, model.num_attention_heads);
  put(spec.num_query_groups, model.num_query_groups);
  put(spec.head_dim, model.head_dim);
  put(spec.vocab_size, model.vocab_size);
  put(spec.max_position_embeddings, model.max_position_embeddings);
  put(spec.norm_eps, model.norm_eps);
  put(spec.rope.base, model.rope_base);
  put(spec.init_std, model.init_std);
  put(spec.sliding_window, model.sliding_window);
  put(spec.tie_word_embeddings, model.tie_word_embeddings);
  if (model.qk_norm) spec.qk_norm = *model.qk_norm ? QkNorm::kHead : QkNorm::kNone;
  put(spec.qkv_bias, model.qkv_bias);
  derive_sizes(model, source, spec);
  return spec;
}

// Fields that may differ from those of the folder the weights come from.
ModelSpec with_free_fields(ModelSpec spec, const ModelSpec& from) {
  spec.norm_eps = from.norm_eps;
  spec.rope.base = from.rope.base;
  spec.init_std = from.init_std;
  spec.sliding_window = from.sliding_window;
  if (from.position == PositionKind::kRotary)
    spec.max_position_embeddings = from.max_position_embeddings;
  return spec;
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

ModelSpec resolve(const config::ModelConfig& model) {
  const auto weights = weights_folder(model);
  const ModelSpec source = source_spec(model);
  const ModelSpec spec = apply(model, source);
  spec.validate();
  if (weights) {
    const auto changed = differences(with_free_fields(source, spec), spec);
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
