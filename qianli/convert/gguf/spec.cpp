// What a GGUF file's own and other keys say of a model, and whether they can say it.
#include "qianli/convert/gguf/spec.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/base/strings.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/spec_fields.h"

namespace qianli::convert {
namespace {

using model::ModelSpec;

// Fields without part in the mathematics of a forward pass, or told by other keys.
bool is_aside(const std::string& path) {
  static const std::vector<std::string> aside{"family",
                                              "init_std",
                                              "bos_token_id",
                                              "eos_token_ids",
                                              "pad_token_id",
                                              "mamba2.chunk_size",
                                              "mtp.loss_scaling_factor",
                                              "moe.bias_update_rate",
                                              "moe.input_jitter",
                                              "moe.sinkhorn",
                                              "moe.token_drop_policy",
                                              "moe.router_dtype",
                                              "moe.capacity_factor",
                                              "moe.pad_to_capacity",
                                              "rope.fraction"};
  return std::ranges::find(aside, path) != aside.end() || path.ends_with("_loss_coeff");
}

struct SameValue {
  const model::FieldValue& other;

  static bool close(double a, double b) {
    return std::abs(a - b) <= 2e-7 * std::max(std::abs(a), std::abs(b));
  }
  bool operator()(const double* value) const {
    return close(*value, **std::get_if<double*>(&other));
  }
  bool operator()(const std::optional<double>* value) const {
    const auto& one = **std::get_if<std::optional<double>*>(&other);
    return value->has_value() == one.has_value() && (!one || close(**value, *one));
  }
  bool operator()(const std::vector<double>* values) const {
    return std::ranges::equal(*values, **std::get_if<std::vector<double>*>(&other), close);
  }
  template <class Field>
  bool operator()(const Field& field) const {
    return model::field_text(model::FieldValue(field)) == model::field_text(other);
  }
};

// The switches in which two specs compute something else.
std::vector<std::string> lost_switches(ModelSpec told, ModelSpec read) {
  std::vector<std::string> lost;
  if (told.rotary_size(told.rope) != read.rotary_size(read.rope))
    lost.emplace_back("rope.fraction");
  for (const model::SpecField& field : model::fields_of(told)) {
    if (is_aside(field.path)) continue;
    if (!model::has_field(read, field.path)) {
      lost.push_back(field.path);
      continue;
    }
    const model::FieldValue other = *model::field_at(read, field.path);
    if (std::visit(SameValue{other}, field.value)) continue;
    lost.push_back(fmt::format("{} {}", field.path, model::field_text(field.value)));
  }
  return lost;
}

// Whether a file's keys are those of a model: they may have been changed since it was written.
bool says_the_same(const GgufKeys& keys, const GgufKeys& expected) {
  return std::ranges::all_of(expected.values(), [&](const auto& entry) {
    const auto place = keys.values().find(entry.first);
    if (place == keys.values().end()) return false;
    const auto* number = std::get_if<double>(&entry.second);
    const auto* found = std::get_if<double>(&place->second);
    if (number && found) return static_cast<float>(*number) == static_cast<float>(*found);
    return entry.second == place->second;
  });
}

std::optional<ModelSpec> own_spec(const GgufKeys& keys) {
  const auto text = keys.text(kConfigKey);
  if (!text) return std::nullopt;
  const std::string source = keys.source() + " " + kConfigKey;
  ModelSpec spec =
      model::from_hugging_face(parse_json(*text, source, FileRole::kCheckpoint), source);
  const GgufArchitecture& architecture = gguf_architecture_of(spec);
  if (says_the_same(keys, keys_of_spec(as_gguf_tells(spec, architecture), architecture))) {
    return spec;
  }
  log::warn("convert", "{}: its keys say something else than {}, which is passed over",
            keys.source(), kConfigKey);
  return std::nullopt;
}

}  // namespace

ModelSpec read_gguf_spec(const GgufSight& sight) {
  if (auto spec = own_spec(sight.keys)) return std::move(*spec);
  return spec_from_keys(sight);
}

void check_tellable(const ModelSpec& told, const GgufArchitecture& architecture,
                    const GgufSight& sight) {
  const ModelSpec read = as_gguf_tells(spec_from_keys(sight), architecture);
  auto lost = lost_switches(told, read);
  if (lost.empty()) return;
  if (lost.size() > 5) lost.resize(5);
  throw ConfigError("convert", fmt::format("expected a model that GGUF's {} has keys for, got {}",
                                           architecture.name, join(lost, "; ")));
}

}  // namespace qianli::convert
