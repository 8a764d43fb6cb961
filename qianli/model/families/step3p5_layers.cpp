// Lists of Step-3.5's config.json with a value for each layer.
#include "qianli/model/families/step3p5.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "qianli/base/strings.h"
#include "qianli/model/families/moe.h"

namespace qianli::model {
namespace {

constexpr double kBase = 10000.0;
constexpr int64_t kFirstWithExperts = 3;
constexpr const char* kFull = "full_attention";
constexpr const char* kSliding = "sliding_attention";

// Layers behind the last one, of which lists may speak too. They are windowed and dense, unlike the
// last layer, and passed over, as transformers does.
int64_t further_layers(const ConfigReader& config) {
  const int64_t count = config.integer("num_nextn_predict_layers", 0);
  if (count < 0 || count > 64) config.fail("num_nextn_predict_layers", "a number between 0 and 64");
  return count;
}

// The list under `key`, a value for each layer; empty where there is none.
std::vector<Json> per_layer(const ConfigReader& config, const char* key, const ModelSpec& spec) {
  const Json& list = config.raw(key);
  if (list.is_null() || (list.is_array() && list.empty())) return {};
  if (!list.is_array()) config.fail(key, "a list");
  check_layers(config, key, list.size(), further_layers(config), spec);
  return std::vector<Json>(list.begin(), list.begin() + spec.num_layers);
}

// 0 and null: no limit.
std::vector<double> read_limits(const ConfigReader& config, const char* key,
                                const ModelSpec& spec) {
  std::vector<double> limits;
  for (const Json& limit : per_layer(config, key, spec)) {
    if (!limit.is_null() && !limit.is_number()) config.fail(key, "numbers and null");
    limits.push_back(limit.is_null() ? 0.0 : limit.get<double>());
  }
  limits = shortest(std::move(limits));
  return limits == std::vector{0.0} ? std::vector<double>() : limits;
}

void read_activation_limits(const ConfigReader& config, ModelSpec& spec) {
  spec.activation_limit = read_limits(config, "swiglu_limits_shared", spec);
  std::vector<double> of_experts = read_limits(config, "swiglu_limits", spec);
  if (of_experts == spec.activation_limit) return;
  spec.moe->activation_limit = of_experts.empty() ? std::vector{0.0} : std::move(of_experts);
}

// The layer with experts that a part of `moe_layers_enum` names.
int64_t layer_number(const ConfigReader& config, std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  int64_t layer = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), layer);
  if (error != std::errc() || end != text.data() + text.size()) {
    config.fail("moe_layers_enum", "numbers of layers with commas");
  }
  return layer;
}

void read_layers_with_experts(const ConfigReader& config, ModelSpec& spec) {
  spec.moe->first_k_dense = kFirstWithExperts;
  const Json& listed = config.raw("moe_layers_enum");
  if (config.has("mlp_layer_types")) return read_mlp_layer_types(config, spec);
  if (listed.is_null() || spec.num_layers < 1 || spec.num_layers > 100000) return;
  std::vector<int64_t> layers;
  if (listed.is_string()) {
    const auto text = listed.get<std::string>();
    if (text.find_first_not_of(' ') != text.npos) {
      for (const std::string& one : split(text, ',')) layers.push_back(layer_number(config, one));
    }
  } else {
    layers = config.integers("moe_layers_enum");
  }
  std::vector<bool> mixed(static_cast<size_t>(spec.num_layers), false);
  for (const int64_t layer : layers) {
    if (layer < 0) config.fail("moe_layers_enum", "numbers of layers");
    // Of layers behind the last one nothing is taken.
    if (layer < spec.num_layers) mixed[static_cast<size_t>(layer)] = true;
  }
  set_layers_with_experts(mixed, spec);
}

// Heads of layers with a window: an object of the published files, or a number of transformers'.
void read_sliding_heads(const ConfigReader& config, ModelSpec& spec) {
  int64_t heads = config.integer("num_sliding_attention_heads", spec.num_attention_heads);
  int64_t groups = spec.num_query_groups;
  if (config.has("attention_other_setting")) {
    const ConfigReader other = config.child("attention_other_setting");
    if (other.text("attention_type", kSliding) != kSliding) other.fail("attention_type", kSliding);
    heads = other.integer("num_attention_heads", heads);
    groups = other.integer("num_attention_groups", groups);
    for (const char* key : {"head_dim", "true_head_dim"}) {
      if (other.integer(key, spec.head_dim) != spec.head_dim) {
        other.fail(key, fmt::format("that of the other layers ({})", spec.head_dim));
      }
    }
  }
  if (!spec.sliding_window) return;
  if (heads != spec.num_attention_heads) spec.sliding_num_attention_heads = heads;
  if (groups != spec.num_query_groups) spec.sliding_num_query_groups = groups;
}

// Overrides of single layers, which must say what is said already.
void check_overrides(const ConfigReader& config, const ModelSpec& spec) {
  if (!config.has("per_layer_config")) return;
  const ConfigReader layers = config.child("per_layer_config");
  for (const std::string& name : layers.unread()) {
    const int64_t heads =
        layers.child(name).integer("num_attention_heads", spec.num_attention_heads);
    if (heads == spec.sliding_num_attention_heads.value_or(spec.num_attention_heads)) continue;
    layers.fail(name, "the heads of layers with a window");
  }
}

bool has_layers(const ModelSpec& spec, MixerKind kind) {
  if (!spec.layer_pattern.empty()) {
    return std::ranges::find(spec.layer_pattern, kind) != spec.layer_pattern.end();
  }
  return (kind == MixerKind::kSlidingAttention) == spec.sliding_window.has_value();
}

// The value under `key` of the layers of one type, which must agree.
double of_type(const ConfigReader& config, const char* key, MixerKind kind, double absent,
               const ModelSpec& spec) {
  if (config.raw(key).is_number()) return config.number(key);
  const std::vector<Json> values = per_layer(config, key, spec);
  std::optional<double> found;
  for (size_t l = 0; l < values.size(); ++l) {
    const auto& pattern = spec.layer_pattern;
    if (!pattern.empty() && pattern[l % pattern.size()] != kind) continue;
    if (!values[l].is_number()) config.fail(key, "a list of numbers");
    const double value = values[l].get<double>();
    if (found.value_or(value) != value) {
      config.fail(key, "one value for all layers of a type",
                  "layers of equal types that differ in "
                  "it are not supported");
    }
    found = value;
  }
  return found.value_or(absent);
}

Rope read_rope_of_type(const ConfigReader& config, MixerKind kind, const ModelSpec& spec) {
  const char* type = kind == MixerKind::kAttention ? kFull : kSliding;
  Rope rope{.base = of_type(config, "rope_theta", kind, kBase, spec),
            .fraction = of_type(config, "partial_rotary_factors", kind, 1.0, spec)};
  const Json& scaling = config.raw("rope_scaling");
  const auto only = config.texts("yarn_only_types");  // of any scaling, whatever the name says
  const bool scaled = only.empty() || std::ranges::find(only, type) != only.end();
  if (!scaled || scaling.is_null()) return rope;
  read_rope_object(config, config.child("rope_scaling"), {.fraction = rope.fraction},
                   spec.max_position_embeddings, rope);
  return rope;
}

void read_ropes(const ConfigReader& config, ModelSpec& spec) {
  Rope full, sliding;
  if (config.has("rope_parameters")) {
    for (const char* key : {"rope_theta", "partial_rotary_factors", "rope_scaling"}) {
      if (config.has(key)) config.fail(key, "rotary options in rope_parameters alone");
    }
    config.raw("yarn_only_types");
    const ConfigReader both = config.child("rope_parameters");
    const auto read_one = [&](const char* type, Rope& rope) {
      if (!both.has(type)) return;
      read_rope_object(config, both.child(type), {.fraction = 1.0}, spec.max_position_embeddings,
                       rope);
    };
    read_one(kFull, full);
    read_one(kSliding, sliding);
    if (!both.unread().empty()) {
      config.fail("rope_parameters", "full_attention and sliding_attention and no other key");
    }
  } else {
    full = read_rope_of_type(config, MixerKind::kAttention, spec);
    sliding = read_rope_of_type(config, MixerKind::kSlidingAttention, spec);
  }
  const bool any_full = has_layers(spec, MixerKind::kAttention);
  spec.rope = any_full ? full : sliding;
  if (any_full && has_layers(spec, MixerKind::kSlidingAttention) && sliding != full) {
    spec.sliding_rope = sliding;
  }
}

void read_rotary_pattern(const ConfigReader& config, ModelSpec& spec) {
  std::vector<bool> rotary;
  for (const Json& one : per_layer(config, "use_rope_layers", spec)) {
    if (!one.is_boolean()) config.fail("use_rope_layers", "true or false for each layer");
    rotary.push_back(one.get<bool>());
  }
  rotary = shortest(std::move(rotary));
  if (rotary != std::vector{true}) spec.rotary_pattern = std::move(rotary);
}

void write_ropes(const ModelSpec& spec, OrderedJson& config) {
  const Rope& sliding = spec.sliding_rope.value_or(spec.rope);
  OrderedJson bases = OrderedJson::array(), fractions = OrderedJson::array();
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const bool slides = spec.layer(l).mixer == MixerKind::kSlidingAttention;
    bases.push_back(slides ? sliding.base : spec.rope.base);
    fractions.push_back(slides ? sliding.fraction : spec.rope.fraction);
  }
  config["rope_theta"] = bases;
  config["partial_rotary_factors"] = fractions;
  config["rope_scaling"] = nullptr;
  OrderedJson types = OrderedJson::array();
  for (const auto& [type, rope] : {std::pair{kFull, &spec.rope}, {kSliding, &sliding}}) {
    if (rope->scaling.kind == RopeScalingKind::kNone) continue;
    config["rope_scaling"] = rope_object(*rope);
    types.push_back(type);
  }
  config["yarn_only_types"] = types;
}

}  // namespace

void read_step3p5_layers(const ConfigReader& config, ModelSpec& spec) {
  read_layer_types(config, {MixerKind::kAttention}, spec.sliding_window, spec,
                   further_layers(config));
  read_sliding_heads(config, spec);
  check_overrides(config, spec);
  read_ropes(config, spec);
  read_rotary_pattern(config, spec);
  read_activation_limits(config, spec);
  read_layers_with_experts(config, spec);
}

void write_step3p5_layers(const ModelSpec& spec, OrderedJson& config) {
  write_layer_types(spec, config);
  if (spec.sliding_window) {
    const int64_t heads = spec.sliding_num_attention_heads.value_or(spec.num_attention_heads);
    const int64_t groups = spec.sliding_num_query_groups.value_or(spec.num_query_groups);
    config["attention_other_setting"] = {{"attention_type", kSliding},
                                         {"num_attention_heads", heads},
                                         {"num_attention_groups", groups},
                                         {"head_dim", spec.head_dim},
                                         {"true_head_dim", spec.head_dim}};
  }
  write_ropes(spec, config);
  OrderedJson rotary = OrderedJson::array(), limits = rotary, shared = rotary;
  std::vector<int64_t> mixed;
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const LayerSpec layer = spec.layer(l);
    if (!spec.rotary_pattern.empty()) rotary.push_back(layer.rope != nullptr);
    limits.push_back(layer.expert_activation_limit);
    shared.push_back(layer.activation_limit);
    if (layer.feed_forward == FeedForwardKind::kMoe) mixed.push_back(l);
  }
  config["use_rope_layers"] = rotary;
  config["swiglu_limits"] = limits;
  config["swiglu_limits_shared"] = shared;
  config["moe_layers_enum"] = fmt::format("{}", fmt::join(mixed, ","));
}

}  // namespace qianli::model
