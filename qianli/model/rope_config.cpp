#include "qianli/model/rope_config.h"

#include <fmt/core.h>

#include "qianli/base/strings.h"
#include "qianli/model/spec_words.h"

namespace qianli::model {
namespace {

RopeScalingKind read_kind(const ConfigReader& options) {
  const char* key = options.has("rope_type") ? "rope_type" : "type";
  const std::string old_name = options.text("type", "default");
  std::string name = options.text("rope_type", old_name);
  if (name == "su") name = "longrope";  // the older name
  RopeScalingKind kind{};
  // Fixed NTK has no word of transformers': families that know it read it themselves.
  if (from_word(name, kind) && kind != RopeScalingKind::kNtkAlpha) return kind;
  options.fail(key, "one of default, linear, dynamic, llama3, yarn, longrope");
}

// 0 and null stand for the default, as in transformers.
double number_or(const ConfigReader& options, const char* key, double fallback) {
  const double value = options.number(key, 0);
  return value == 0 ? fallback : value;
}

std::optional<double> optional_number(const ConfigReader& options, const char* key) {
  return options.has(key) ? std::optional(options.number(key)) : std::nullopt;
}

// Without effect unless both are there and not 0; DeepSeek's softmax scale looks at one alone.
std::optional<double> read_mscale(const ConfigReader& options, const char* key) {
  const double value = options.number(key, 0);
  return value == 0 ? std::nullopt : std::optional(value);
}

void read_yarn(const ConfigReader& options, int64_t max_positions, RopeScaling& scaling) {
  const double implied =
      static_cast<double>(max_positions) / static_cast<double>(scaling.original_max_positions);
  scaling.factor = options.number("factor", implied);
  scaling.beta_fast = number_or(options, "beta_fast", 32);
  scaling.beta_slow = number_or(options, "beta_slow", 1);
  scaling.truncate = options.flag("truncate", true);
  scaling.attention_factor = optional_number(options, "attention_factor");
  scaling.mscale = read_mscale(options, "mscale");
  scaling.mscale_all_dim = read_mscale(options, "mscale_all_dim");
}

void read_longrope(const ConfigReader& options, RopeScaling& scaling) {
  scaling.short_factor = options.numbers("short_factor");
  scaling.long_factor = options.numbers("long_factor");
  scaling.short_mscale = optional_number(options, "short_mscale");
  scaling.long_mscale = optional_number(options, "long_mscale");
  scaling.attention_factor = optional_number(options, "attention_factor");
  options.raw("factor");  // follows from the positions
}

// Original positions: the key of the object; a key beside it has the last word, as in transformers.
int64_t read_original(const ConfigReader& config, const ConfigReader& options,
                      const RopeDefaults& defaults, int64_t max_positions) {
  const int64_t maximum = defaults.original_max_positions.value_or(max_positions);
  const char* key = "original_max_position_embeddings";
  const int64_t inside = options.integer(key, maximum);
  const int64_t original = config.integer(key, inside);
  if (original < 1) (config.has(key) ? config : options).fail(key, "a positive integer");
  return original;
}

void refuse_unread(const ConfigReader& options, RopeScalingKind kind) {
  for (const std::string& key : options.unread()) {
    // Written by old converters, without effect on these kinds.
    if (key == "finetuned" || key == "original_max_position_embeddings") continue;
    options.fail(
        key, fmt::format("no such key beside rope_type {}", to_string(kind)),
        "this rotary option is not supported; without it the model would compute something else");
  }
}

double read_fraction(const ConfigReader& where, const RopeDefaults& defaults, double fallback) {
  const double fraction = where.number("partial_rotary_factor", fallback);
  if (!defaults.fraction && fraction != 1) {
    where.fail("partial_rotary_factor", "1 for this family, whose heads are rotated whole");
  }
  return fraction;
}

}  // namespace

void read_rope_object(const ConfigReader& config, const ConfigReader& options,
                      const RopeDefaults& defaults, int64_t max_positions, Rope& rope) {
  RopeScaling& scaling = rope.scaling;
  scaling.kind = read_kind(options);
  rope.base = options.number("rope_theta", rope.base);
  rope.fraction = read_fraction(options, defaults, rope.fraction);
  switch (scaling.kind) {
    case RopeScalingKind::kNone:
    case RopeScalingKind::kNtkAlpha:
      options.raw("factor");  // a factor of 1 stands in some files, without effect
      break;
    case RopeScalingKind::kLinear:
    case RopeScalingKind::kDynamic:
      scaling.factor = options.number("factor");
      break;
    case RopeScalingKind::kLlama3:
      scaling.original_max_positions = read_original(config, options, defaults, max_positions);
      scaling.factor = options.number("factor");
      scaling.low_freq_factor = options.number("low_freq_factor");
      scaling.high_freq_factor = options.number("high_freq_factor");
      break;
    case RopeScalingKind::kYarn:
      scaling.original_max_positions = read_original(config, options, defaults, max_positions);
      read_yarn(options, max_positions, scaling);
      break;
    case RopeScalingKind::kLongrope:
      scaling.original_max_positions = read_original(config, options, defaults, max_positions);
      read_longrope(options, scaling);
      break;
  }
  refuse_unread(options, scaling.kind);
}

void read_rope(const ConfigReader& config, const RopeDefaults& defaults, ModelSpec& spec) {
  spec.rope.base = config.number("rope_theta", defaults.base);
  spec.rope.fraction = read_fraction(config, defaults, defaults.fraction.value_or(1.0));
  config.raw("original_max_position_embeddings");
  const bool scaling = config.has("rope_scaling");
  const bool parameters = config.has("rope_parameters");
  if (scaling && parameters && config.raw("rope_scaling") != config.raw("rope_parameters")) {
    config.fail("rope_scaling", "the same rotary options in rope_scaling and rope_parameters",
                "keep one of the two");
  }
  if (!scaling && !parameters) return;
  const std::string key = scaling ? "rope_scaling" : "rope_parameters";
  for (const Json& value : config.raw(key)) {
    if (config.raw(key).is_object() && value.is_object()) {
      config.fail(key, "one set of rotary options for all layers",
                  "rotary options that differ by layer are not supported");
    }
  }
  read_rope_object(config, config.child(key), defaults, spec.max_position_embeddings, spec.rope);
}

OrderedJson rope_object(const Rope& rope) {
  const RopeScaling& scaling = rope.scaling;
  OrderedJson options;
  const auto put = [&options](const char* key, const auto& value) {
    if (value) options[key] = *value;
  };
  options["rope_type"] = to_string(scaling.kind);
  if (scaling.kind == RopeScalingKind::kNone) return options;
  if (scaling.kind != RopeScalingKind::kLongrope) options["factor"] = scaling.factor;
  if (scaling.original_max_positions > 0) {
    options["original_max_position_embeddings"] = scaling.original_max_positions;
  }
  if (scaling.kind == RopeScalingKind::kLlama3) {
    options["low_freq_factor"] = scaling.low_freq_factor;
    options["high_freq_factor"] = scaling.high_freq_factor;
  }
  if (scaling.kind == RopeScalingKind::kYarn) {
    options["beta_fast"] = scaling.beta_fast;
    options["beta_slow"] = scaling.beta_slow;
    put("mscale", scaling.mscale);
    put("mscale_all_dim", scaling.mscale_all_dim);
    if (!scaling.truncate) options["truncate"] = false;
  }
  if (scaling.kind == RopeScalingKind::kLongrope) {
    options["short_factor"] = scaling.short_factor;
    options["long_factor"] = scaling.long_factor;
    put("short_mscale", scaling.short_mscale);
    put("long_mscale", scaling.long_mscale);
  }
  put("attention_factor", scaling.attention_factor);
  return options;
}

void write_rope(const ModelSpec& spec, OrderedJson& config) {
  config["rope_theta"] = spec.rope.base;
  config["rope_scaling"] = nullptr;
  if (spec.rope.fraction != 1) config["partial_rotary_factor"] = spec.rope.fraction;
  if (spec.rope.scaling.kind != RopeScalingKind::kNone) {
    config["rope_scaling"] = rope_object(spec.rope);
  }
}

}  // namespace qianli::model
